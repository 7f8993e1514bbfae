"""Run stages on Dask workers. Each worker keeps one warm engine and takes chunks of a batch.

Workers may die and join at any time. The flow, its tasks and the one dispatcher of LLM calls stay in the
flow's process; only candidates are sent.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dask
import distributed
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from synth_core.errors import EnvironmentFault
from synth_core.records import Candidate, Manifest, Stage
from synth_core.settings import BudgetSettings, Settings

if TYPE_CHECKING:
    from tasks.stages import Step

OpenSteps = Callable[[Settings], contextlib.AbstractContextManager["dict[Stage, Step]"]]

# Candidates per chunk. The engine compiles the C++ of several programs as one unit, so a worker needs a few
# at once. Larger chunks would share a batch out unevenly.
_CHUNK = 8
# How many workers may die with a chunk before the chunk fails. Programs run in sandboxes and cannot kill a
# worker.
_DEATHS = 20
_CONNECT = "20s"
_WORKER_SECONDS = 120.0  # how long a scheduler may have no worker
_CHECK_SECONDS = 5.0  # how often to check, while waiting for results, that there are workers


@dataclass(frozen=True)
class _WorkerSetup:
    """What each worker opens once for a run: the stages and what they keep warm."""

    id: str
    open_steps: OpenSteps
    settings: str


@contextlib.contextmanager
def open_on_dask(
    settings: Settings, stages: Sequence[Stage], open_steps: OpenSteps
) -> Iterator[dict[Stage, Step]]:
    """Yield the stages as functions that send their work to workers. Each worker calls `open_steps` once.

    Connects to `settings.dask_address`. Without an address, starts `num_worker` processes on this machine.
    Raises `EnvironmentFault` if no scheduler answers, if it has no worker, or if the workers die.
    """
    setup = _WorkerSetup(uuid.uuid4().hex, open_steps, _for_workers(settings).model_dump_json())
    with _client(settings) as client:
        _await_worker(client)
        # Engines start while the first candidates are being written. Workers that join later start theirs
        # on demand.
        starting = [
            client.submit(_start, setup, workers=[worker], pure=False)
            for worker in client.nthreads()  # type: ignore[no-untyped-call]
        ]

        def step(stage: Stage) -> Step:
            return lambda candidates, _: _run_chunks(client, stage, setup, candidates)

        try:
            yield {stage: step(stage) for stage in stages}
        finally:
            del starting  # kept until here: Dask drops work whose future nobody holds
            if settings.dask_address:  # these workers outlive the run
                with contextlib.suppress(OSError):
                    _close_everywhere(client, setup)


def _for_workers(settings: Settings) -> Settings:
    """Drop the budgets, which the flow keeps, and another machine's cache folder."""
    cache_dir = "" if settings.dask_address else settings.cache_dir
    return settings.model_copy(update={"budget": BudgetSettings(), "cache_dir": cache_dir})


@contextlib.contextmanager
def _client(settings: Settings) -> Iterator[distributed.Client]:
    """Connect or start a cluster by prefect-dask. ARCHITECTURE.md says why it does not run the tasks."""
    # Imported here, because workers import this module without Prefect.
    from prefect_dask.task_runners import DaskTaskRunner

    here = {
        "n_workers": settings.num_worker,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",  # None would mean port 8787 on every interface
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
        except (OSError, RuntimeError) as error:  # no answer, or a worker died while it started
            what = (
                f"no Dask scheduler at {settings.dask_address}"
                if settings.dask_address
                else "no Dask cluster"
            )
            raise EnvironmentFault(f"{what}: {error}") from None
        yield client


def _await_worker(client: distributed.Client) -> None:
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError:
        assert client.scheduler is not None
        address = client.scheduler.address
        what = f"the Dask scheduler at {address} has no worker"
        raise EnvironmentFault(f"{what} (start one: dask worker {address})") from None


def _run_chunks(
    client: distributed.Client, stage: Stage, setup: _WorkerSetup, candidates: Sequence[Candidate]
) -> list[Candidate]:
    """Send the alive candidates in chunks to free workers. Returns all candidates in order."""
    records = [candidate.model_dump_json() for candidate in candidates if candidate.alive]
    chunks = [records[i : i + _CHUNK] for i in range(0, len(records), _CHUNK)]
    futures = [client.submit(_work, setup, stage, chunk, pure=False) for chunk in chunks]
    try:
        worked = iter([record for future in futures for record in _result(client, future)])
    except (KilledWorker, CommClosedError, FutureCancelledError) as error:
        raise EnvironmentFault(f"Dask workers died while they worked on a batch: {error}") from None
    return [
        Candidate.model_validate_json(next(worked)) if candidate.alive else candidate
        for candidate in candidates
    ]


def _result(client: distributed.Client, future: distributed.Future[list[str]]) -> list[str]:
    """Return the future's result. Raises `EnvironmentFault` if no worker is left to compute it."""
    while True:
        try:
            return future.result(timeout=_CHECK_SECONDS)
        except TimeoutError:
            if future.status == "error":  # the work itself raised the TimeoutError
                raise
            if future.status == "pending":
                _await_worker(client)


def _close_everywhere(client: distributed.Client, setup: _WorkerSetup) -> None:
    """Ask every worker to close the run's stages. Does not wait: a worker may be busy with abandoned work."""
    for worker in client.nthreads():  # type: ignore[no-untyped-call]
        closing = client.submit(_close, setup.id, workers=[worker], pure=False)
        distributed.fire_and_forget(closing)  # type: ignore[no-untyped-call]


def _start(setup: _WorkerSetup) -> None:
    """Runs on the worker: open the stages before there is work for them."""
    _opened_steps(setup)


def _work(setup: _WorkerSetup, stage: Stage, records: Sequence[str]) -> list[str]:
    """Runs on the worker: apply the stage, with the engine that this process keeps warm."""
    step = _opened_steps(setup)[stage]
    candidates = [Candidate.model_validate_json(record) for record in records]
    place = Manifest(path="", digest="", stage=stage, total=len(candidates), alive=len(candidates))
    return [candidate.model_dump_json() for candidate in step(candidates, place)]


def _close(setup_id: str) -> None:
    """Runs on the worker: end what it keeps for a run that is over."""
    with _OPENING:
        _, stack = _OPENED.pop(setup_id, ({}, contextlib.ExitStack()))
        stack.close()


_OPENED: dict[str, tuple[dict[Stage, Step], contextlib.ExitStack]] = {}
_OPENING = threading.Lock()


def _opened_steps(setup: _WorkerSetup) -> dict[Stage, Step]:
    with _OPENING:
        if setup.id not in _OPENED:
            stack = contextlib.ExitStack()
            atexit.register(_close, setup.id)
            threads = distributed.get_worker().state.nthreads
            own = Settings.model_validate_json(setup.settings).model_copy(update={"num_worker": threads})
            _OPENED[setup.id] = stack.enter_context(setup.open_steps(own.resolved())), stack
        return _OPENED[setup.id][0]
