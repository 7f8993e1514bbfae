"""The flow `validate`: the two validation stages, for shards that a run hands to another machine."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.context import TagsContext
from prefect.task_runners import ThreadPoolTaskRunner

from flows.pipeline.compute import open_compute
from synth_core.errors import EnvironmentFault
from synth_core.records import Manifest, Stage
from synth_core.settings import Settings
from tasks.cache import ShardCache
from tasks.stages import Stages, stage_tasks
from tasks.storage import fetch, send
from tasks.versions import validation_versions


@flow(
    name="validate",
    flow_run_name="validate-{run_id}",
    task_runner=ThreadPoolTaskRunner(),  # type: ignore[arg-type]
    persist_result=False,
)
def validate(settings: Settings, run_id: str, shards: list[Manifest], versions: dict[str, str]) -> int:
    """Validate the programs in a run's shards. The run that handed them over collects the results.

    Args:
        settings: The settings of that run, without values that depend on the machine. If
            `validation.pool_storage` names a folder or URL, shards are copied through it. Otherwise this
            machine must reach `output_dir`.
        run_id: The id of that run, for names and logs.
        shards: The shards that the stage `extract` made, one per batch.
        versions: The versions of these two stages and the release of torch on that run's machine. If this
            machine has others the flow fails, because the run would not find the results.

    Returns:
        The number of candidates that are still alive at the end.
    """
    get_run_logger().info("run=%s shards=%d", run_id, len(shards))
    _check(versions)
    settings = settings.resolved()
    with (
        _shard_cache(settings, run_id) as cache,
        open_compute(settings) as steps,
        TagsContext(current_tags=set()),
    ):
        tasks = stage_tasks(Stages(start=_nothing, steps=steps), cache)
        upstream: Sequence[Manifest] = [_local(shard, cache) for shard in shards]
        eager = tasks[Stage.VALIDATE_EAGER].map(upstream)
        compiled = tasks[Stage.VALIDATE_COMPILE].map(eager)
        results = [*eager.result(), *compiled.result()]  # the cause of a failure first
        if cache.root:
            for manifest in results:
                send(Path(manifest.path), settings.validation.pool_storage)
    return sum(manifest.alive for manifest in results if manifest.stage is Stage.VALIDATE_COMPILE)


def _check(versions: Mapping[str, str]) -> None:
    other = [
        f"{name} {here} instead of {versions.get(name)}"
        for name, here in validation_versions().items()
        if here != versions.get(name)
    ]
    if other:
        what = f"this worker has {', '.join(other)}"
        raise EnvironmentFault(f"{what}; install the run's releases of Synth and torch here")


@contextlib.contextmanager
def _shard_cache(settings: Settings, run_id: str) -> Iterator[ShardCache]:
    """The run's own shard cache if this machine reaches it, else a temporary one with the same keys."""
    if not settings.validation.pool_storage:
        yield ShardCache(settings, run_id)
        return
    with tempfile.TemporaryDirectory(prefix="synth-validate-") as folder:
        yield ShardCache(settings, run_id, root=Path(folder))


def _local(shard: Manifest, cache: ShardCache) -> Manifest:
    """The shard as this machine reaches it."""
    if not cache.root:
        return shard
    path, storage = cache.shard(shard.stage, Path(shard.path).stem), cache.settings.validation.pool_storage
    if not fetch(path, storage):
        raise EnvironmentFault(f"{storage} does not contain the shard {path.name} that was handed over")
    return shard.model_copy(update={"path": str(path)})


def _nothing(*_: object) -> list:  # type: ignore[type-arg]
    raise NotImplementedError("the flow `validate` starts from shards")
