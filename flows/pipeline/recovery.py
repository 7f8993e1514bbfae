"""Whose work a run is: a flow goes on with runs that were cut short, and notes how its own ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar
from uuid import UUID

from httpx import HTTPError
from prefect import get_client, get_run_logger
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.runtime import flow_run

from flows.prefect_server.connection import is_outage
from flows.prefect_server.dead_runs import mark_crashed
from flows.prefect_server.locks import lock_run
from synth_core.errors import EnvironmentFault, SynthError, UsageError
from synth_core.store import Run, RunState, continue_run, finish_run, load_run, refuse_pruned, run_ids

# What passes by itself, an outage or a full disk as well as an interrupt: the next scheduled run goes on with
# the run then, so many times in a row at most. A mistake or a bug comes back until a person has seen to it.
# Prefect raises the CancelledError where the flow run has lost its place among those that may run at once.
_TRANSIENT = (
    KeyboardInterrupt,
    TerminationSignal,
    asyncio.CancelledError,
    EnvironmentFault,
    OSError,
)
_MAX_TAKEOVERS = 5
_GOES_ON = "Its process is gone; another flow run goes on with the work."

_Done = TypeVar("_Done")


def resume_run(run: Run, work_on: Callable[[Run], _Done]) -> _Done:
    """Do what is left of a run; `UsageError` where another process works on it or has dropped its shards."""
    with lock_run(run.folder) as held:
        if not held:
            raise UsageError(f"run {run.run_id} is at work in another process; wait for it or stop it")
        refuse_pruned(load_run(run.output_dir, run.run_id))
        return work_on(_claim(run))


def resume_interrupted_runs(output_dir: str, work_on: Callable[[Run], object]) -> None:
    """Do what is left of the folder's runs that were cut short; one that can't go on stops nothing else."""
    log = get_run_logger()
    for run_id in run_ids(output_dir):
        run = _interrupted_run(output_dir, run_id)
        if run is None:
            continue
        with lock_run(run.folder) as free:
            # Read again: whoever held the lock a moment ago may have finished it.
            run = _interrupted_run(output_dir, run_id) if free else None
            if run is None:
                log.info("run=%s is at work in another process, or has just ended", run_id)
                continue
            try:
                work_on(_claim(run, run.takeovers + 1))
            except Exception as error:
                if _is_cancelled():
                    raise
                what = "run=%s was taken up and failed: %s"
                log.error(what, run_id, error, exc_info=not isinstance(error, SynthError))


@contextlib.contextmanager
def record_outcome(run: Run) -> Iterator[None]:
    """Around the work on a run whose lock the caller holds: what it raises is told by the run's record."""
    try:
        yield
    except BaseException as error:
        goes_on = _is_transient(error) and not _is_cancelled()
        finish_run(run, RunState.INTERRUPTED if goes_on else RunState.FAILED)
        raise


def flow_run_id() -> str:
    return str(flow_run.get_id() or "")


def _interrupted_run(output_dir: str, run_id: str) -> Run | None:
    """The run, if it was interrupted or says it runs, which without its lock means that it was killed."""
    log = get_run_logger()
    try:
        run = load_run(output_dir, run_id)
    except UsageError as error:
        log.warning("run=%s is left as it is: %s", run_id, error)
        return None
    if run.state not in (RunState.RUNNING, RunState.INTERRUPTED):
        return None
    if run.takeovers >= _MAX_TAKEOVERS:
        what = "run=%s was taken up %d times in a row and never ended; it is left to `synth resume --run %s`"
        log.warning(what, run_id, run.takeovers, run_id)
        return None
    return run


def _claim(run: Run, takeovers: int = 0) -> Run:
    """The run as this flow run's; `takeovers` counts how often in a row that came by itself.

    Its lock is free, so the flow run that worked on it has ended or was killed, with one exception: a flow
    run that had taken it up goes on with other work when it has noted how it ended.
    """
    goes_on = run.takeovers and run.state is not RunState.RUNNING
    if run.flow_run_id != flow_run_id() and not goes_on:
        mark_crashed(run.flow_run_id, _GOES_ON)
    return continue_run(run, flow_run_id=flow_run_id(), takeovers=takeovers)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, _TRANSIENT) or (isinstance(error, Exception) and is_outage(error))


def _is_cancelled() -> bool:
    """Whether a person cancelled this flow run; then nothing goes on with it by itself.

    Where the server is out of reach nobody can have.
    """
    silent = (ObjectNotFound, ValueError, HTTPError)
    with contextlib.suppress(*silent), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run_id())).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False
