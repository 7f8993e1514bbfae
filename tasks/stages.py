"""The eight stages as Prefect tasks: read a shard, call the library, write a shard, return its manifest.

A candidate that fails is data. A task run fails only if the machine fails (`EnvironmentFault`). So
Prefect's retries and crashes always point to the machine, never to a program.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.tasks import Task

from synth_core.errors import EnvironmentFault, HopelessProvider, UsageError
from synth_core.records import Candidate, Category, Manifest, Stage
from synth_core.store import describe_shard, read_shard, write_shard
from tasks.cache import Batch, OperatorSignatures, ShardCache
from tasks.versions import VALIDATION, stage_version

Start = Callable[[Batch, Sequence[Candidate]], list[Candidate]]
Step = Callable[[Sequence[Candidate], Manifest], list[Candidate]]


@dataclass(frozen=True)
class Stages:
    """What each stage does. Tests and benchmarks run simulated stages through the same tasks.

    start: makes the candidates of a batch. For a retry, it is given the candidates of the batch's sources.
    steps: stage -> function of the candidates and their manifest. It returns as many candidates, in order.
        Only `llm` may return fewer: those that the budget did not cover wait for a resume.
    closed: set when the run ends, also by an interrupt. Queued work is then left for a resume.
    """

    start: Start
    steps: dict[Stage, Step]
    closed: threading.Event = field(default_factory=threading.Event)


class RunEnding(EnvironmentFault):
    """The batch was not started, because the run is ending."""


# Seconds before each retry after a fault of the machine or the network. A bad program or a hopeless
# provider is never retried. A remote service gets more time than this machine's disk. The validation engine
# restarts its children itself, so its stages are not retried.
_DELAYS: dict[Stage, list[float]] = {Stage.LLM: [2, 4, 8], **{stage: [] for stage in VALIDATION}}
_DELAYS_ELSEWHERE: list[float] = [1, 2]
_JITTER = 0.5


def stage_tasks(stages: Stages, cache: ShardCache) -> dict[Stage, Task[[Batch | Manifest], Manifest]]:
    """Return the tasks of one run, in the order in which a candidate passes them."""
    return {stage: _stage_task(stage, stages, cache) for stage in Stage}


def _stage_task(stage: Stage, stages: Stages, cache: ShardCache) -> Task[[Batch | Manifest], Manifest]:
    # A closure holds the stages. Prefect would traverse, hash and display them if they were a parameter.
    def run(upstream: Batch | Manifest) -> Manifest:
        manifest, candidates = _found(stage, upstream, cache) or _made(stage, upstream, stages, cache)
        _log(manifest, candidates, cache.run_id)
        return manifest

    run.__name__ = run.__qualname__ = stage.value.replace("-", "_")
    delays = _DELAYS.get(stage, _DELAYS_ELSEWHERE)
    return task(
        name=stage.value,
        version=stage_version(stage),
        task_run_name=f"{stage}-{{upstream.strategy}}-r{{upstream.round}}-b{{upstream.batch:04d}}",
        cache_policy=OperatorSignatures(stage=stage, cache=cache),
        persist_result=True,
        result_storage=cache.results,
        result_serializer="json",
        retries=len(delays),
        retry_delay_seconds=delays or None,
        retry_jitter_factor=_JITTER if delays else None,
        retry_condition_fn=lambda task, run, state: not stages.closed.is_set() and _is_transient(state),
    )(run)


def _found(
    stage: Stage, upstream: Batch | Manifest, cache: ShardCache
) -> tuple[Manifest, Sequence[Candidate]] | None:
    """Return a shard that the pool's worker made, or a run that was killed before Prefect recorded it."""
    path = cache.find(stage, cache.key(stage, upstream))
    if path is None:
        return None
    candidates = read_shard(path)
    return describe_shard(path, candidates, **_place(stage, upstream)), candidates


def _made(
    stage: Stage, upstream: Batch | Manifest, stages: Stages, cache: ShardCache
) -> tuple[Manifest, Sequence[Candidate]]:
    if stages.closed.is_set():
        raise RunEnding("the run is ending; its resume runs this batch")
    if isinstance(upstream, Batch):
        earlier = [candidate for source in upstream.sources for candidate in read_shard(source.path)]
        candidates = stages.start(upstream, earlier)
    else:
        candidates = stages.steps[stage](read_shard(upstream.path), upstream)
    key = cache.key(stage, upstream)
    if stage is Stage.LLM and not _is_final(upstream, candidates):
        # An outage is not an answer, so other runs must not find this shard: its name includes the run id.
        # This run finds it once the batch is settled.
        key += f"-{cache.run_id}"
    return write_shard(cache.shard(stage, key), candidates, **_place(stage, upstream)), candidates


def _place(stage: Stage, upstream: Batch | Manifest) -> dict[str, Any]:
    strategy, round_, batch = upstream.strategy, upstream.round, upstream.batch
    return {"stage": stage, "strategy": strategy, "round": round_, "batch": batch}


def _is_final(upstream: Batch | Manifest, answered: Sequence[Candidate]) -> bool:
    """Return whether all candidates were asked and none met an error of the provider that may pass."""
    errors = any(c.failure and c.failure.category is Category.PROVIDER_ERROR for c in answered)
    return isinstance(upstream, Manifest) and len(answered) == upstream.total and not errors


def _is_transient(state: State[Any]) -> bool:
    """Return whether the error of the task run may pass by itself."""
    try:
        state.result()
    except (HopelessProvider, RunEnding, UsageError):
        return False
    except (EnvironmentFault, OSError):
        return True
    except Exception:
        return False  # a bug of ours comes back each time
    return False


def _log(manifest: Manifest, candidates: Sequence[Candidate], run_id: str) -> None:
    """Log one line per task run, with the ids by which one finds it in the ledger and in the UI."""
    if TaskRunContext.get() is None:
        return
    dropped = [
        f"{candidate.id} {candidate.failure.category}"
        for candidate in candidates
        if candidate.failure and candidate.failure.stage is manifest.stage
    ]
    span = f"{candidates[0].id}..{candidates[-1].id}" if candidates else "none"
    get_run_logger().info(
        "run=%s batch=r%d-b%04d candidates=%s alive=%d/%d%s",
        run_id,
        manifest.round,
        manifest.batch,
        span,
        manifest.alive,
        manifest.total,
        f" dropped: {', '.join(dropped)}" if dropped else "",
    )
