"""Stages spread over Dask workers: each keeps one warm engine, takes chunks of a batch, may die and may join.

The flow, its tasks and the one dispatcher of LLM calls stay where they are; only candidates travel.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import dask
import distributed
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from synth_core.errors import EnvironmentFault
from synth_core.records import Candidate, Manifest, Stage
from synth_core.settings import Settings

if TYPE_CHECKING:
    from tasks.stages import Step

OpenSteps = Callable[[Settings], contextlib.AbstractContextManager["dict[Stage, Step]"]]

# Several programs' C++ is compiled as one unit, so a worker wants a few at once; few enough to share evenly.
_CHUNK = 8
# How many workers may die under a chunk before the chunk itself is suspected; programs can't kill a worker.
_DEATHS = 20
_CONNECT = "20s"


@contextlib.contextmanager
def spread(settings: Settings, stages: Sequence[Stage], open_steps: OpenSteps) -> Iterator[dict[Stage, Step]]:
    """The named stages, carried out by workers that open them with `open_steps`, once each.

    Connects to `settings.dask_address`, or starts a cluster here with a process for each of `num_worker`.
    Raises `EnvironmentFault` where no scheduler answers or no worker survives.
    """
    with _client(settings) as client:
        text = settings.model_dump_json()
        # Engines start while the first candidates are being written; later workers start their own.
        starting = [
            client.submit(_start, open_steps, text, workers=[worker], pure=False)
            for worker in client.nthreads()  # type: ignore[no-untyped-call]
        ]

        def step(stage: Stage) -> Step:
            return lambda candidates, _: _scatter(client, stage, text, open_steps, candidates)

        yield {stage: step(stage) for stage in stages}
        del starting  # kept till here: Dask forgets work whose future nobody holds


@contextlib.contextmanager
def _client(settings: Settings) -> Iterator[distributed.Client]:
    """prefect-dask handles the cluster; ARCHITECTURE.md says why it does not run the tasks."""
    from prefect_dask.task_runners import DaskTaskRunner  # a worker, which imports this too, has no Prefect

    here = {
        "n_workers": settings.num_worker,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",  # None would mean port 8787 of every interface
        "silence_logs": "CRITICAL",
        "lifetime": "4 hours",
        "lifetime_stagger": "10 minutes",
        "lifetime_restart": True,
    }
    cluster = {"address": settings.dask_address} if settings.dask_address else {"cluster_kwargs": here}
    options = {
        "distributed.scheduler.allowed-failures": _DEATHS,
        "distributed.comm.timeouts.connect": _CONNECT,
    }
    with dask.config.set(options), DaskTaskRunner(**cluster) as runner:
        try:
            client = runner.client
        except (OSError, RuntimeError) as error:  # out of reach; or a worker died while it started
            what = (
                f"no Dask scheduler at {settings.dask_address}"
                if settings.dask_address
                else "no Dask cluster"
            )
            raise EnvironmentFault(f"{what}: {error}") from None
        yield client


def _scatter(
    client: distributed.Client,
    stage: Stage,
    settings: str,
    open_steps: OpenSteps,
    candidates: Sequence[Candidate],
) -> list[Candidate]:
    """The alive candidates in chunks to whatever worker is free; all of them back, in order."""
    records = [candidate.model_dump_json() for candidate in candidates if candidate.alive]
    chunks = [records[i : i + _CHUNK] for i in range(0, len(records), _CHUNK)]
    futures = [client.submit(_work, open_steps, stage, settings, chunk, pure=False) for chunk in chunks]
    try:
        results: list[list[str]] = client.gather(futures)  # type: ignore[no-untyped-call]
    except (KilledWorker, CommClosedError, distributed.client.FutureCancelledError) as error:
        raise EnvironmentFault(f"Dask workers died under a batch: {error}") from None
    worked = itertools.chain.from_iterable(results)
    return [
        Candidate.model_validate_json(next(worked)) if candidate.alive else candidate
        for candidate in candidates
    ]


def _start(open_steps: OpenSteps, settings: str) -> None:
    """On the worker: open the stages before there is work for them."""
    _steps(open_steps, settings)


def _work(open_steps: OpenSteps, stage: Stage, settings: str, records: Sequence[str]) -> list[str]:
    """On the worker: the stage's function, with the engine that this process keeps warm."""
    step = _steps(open_steps, settings)[stage]
    candidates = [Candidate.model_validate_json(record) for record in records]
    place = Manifest(path="", digest="", stage=stage, total=len(candidates), alive=len(candidates))
    return [candidate.model_dump_json() for candidate in step(candidates, place)]


_OPENED: dict[tuple[str, str], dict[Stage, Step]] = {}
_OPENING = threading.Lock()


def _steps(open_steps: OpenSteps, settings: str) -> dict[Stage, Step]:
    key = (f"{open_steps.__module__}:{open_steps.__qualname__}", settings)
    with _OPENING:
        if key not in _OPENED:
            stack = contextlib.ExitStack()
            atexit.register(stack.close)
            threads = distributed.get_worker().state.nthreads
            own = Settings.model_validate_json(settings).model_copy(update={"num_worker": threads})
            _OPENED[key] = stack.enter_context(open_steps(own))
        return _OPENED[key]
