"""Resume runs that were interrupted, and record how a run ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from uuid import UUID

from httpx import HTTPError
from prefect import get_client, get_run_logger
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.runtime import flow_run

from flows.prefect_server.connection import is_outage
from flows.prefect_server.dead_runs import mark_crashed
from flows.prefect_server.locks import lock_run
from synth_core.errors import EnvironmentFault, SynthError, UsageError
from synth_core.store import Run, RunState, continue_run, finish_run, load_run, run_ids

# Errors that may pass by themselves, such as an outage, a full disk or an interrupt. The next scheduled run
# resumes a run that ended like this, at most `_MAX_TAKEOVERS` times in a row. A mistake or a bug needs a
# person first. Prefect raises CancelledError if the flow run lost its concurrency slot.
_TRANSIENT = (
    KeyboardInterrupt,
    TerminationSignal,
    asyncio.CancelledError,
    EnvironmentFault,
    OSError,
)
_MAX_TAKEOVERS = 5
_RESUMED = "Its process is gone; another flow run resumes the work."


def resume_interrupted_runs(output_dir: str, work_on: Callable[[Run], object]) -> None:
    """Finish the folder's interrupted runs. A run that cannot be resumed does not stop the others."""
    log = get_run_logger()
    for run_id in run_ids(output_dir):
        run = _interrupted_run(output_dir, run_id)
        if run is None:
            continue
        with lock_run(run.folder) as free:
            # Read it again: the process that held the lock a moment ago may have finished the run.
            run = _interrupted_run(output_dir, run_id) if free else None
            if run is None:
                log.info("run=%s: another process works on it, or it has just ended", run_id)
                continue
            try:
                work_on(take_over(run, run.takeovers + 1))
            except Exception as error:
                if _is_cancelled():
                    raise
                what = "run=%s was resumed and failed: %s"
                log.error(what, run_id, error, exc_info=not isinstance(error, SynthError))


@contextlib.contextmanager
def record_outcome(run: Run) -> Iterator[None]:
    """Record in the run's record what the block raises. The caller holds the run's lock."""
    try:
        yield
    except BaseException as error:
        resumable = _is_transient(error) and not _is_cancelled()
        finish_run(run, RunState.INTERRUPTED if resumable else RunState.FAILED)
        raise


def flow_run_id() -> str:
    return str(flow_run.get_id() or "")


def _interrupted_run(output_dir: str, run_id: str) -> Run | None:
    """Return the run if it was interrupted or killed.

    A killed run still says that it is running. The caller takes its lock, which proves that it is not.
    """
    log = get_run_logger()
    try:
        run = load_run(output_dir, run_id)
    except UsageError as error:
        log.warning("run=%s is left as it is: %s", run_id, error)
        return None
    if run.state not in (RunState.RUNNING, RunState.INTERRUPTED):
        return None
    if run.takeovers >= _MAX_TAKEOVERS:
        what = "run=%s was resumed %d times in a row and never ended; resume it by `synth resume --run %s`"
        log.warning(what, run_id, run.takeovers, run_id)
        return None
    return run


def take_over(run: Run, takeovers: int = 0) -> Run:
    """The run as this flow run's; `takeovers` counts how often in a row that came by itself.

    The run's lock was free, so the flow run that worked on it has ended or was killed. There is one
    exception: a flow run that resumed it automatically and recorded its end goes on with other work.
    """
    still_works = run.takeovers and run.state is not RunState.RUNNING
    if run.flow_run_id != flow_run_id() and not still_works:
        mark_crashed(run.flow_run_id, _RESUMED)
    return continue_run(run, flow_run_id=flow_run_id(), takeovers=takeovers)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, _TRANSIENT) or (isinstance(error, Exception) and is_outage(error))


def _is_cancelled() -> bool:
    """Return whether a person cancelled this flow run. A cancelled run is not resumed automatically.

    If the server cannot be reached, nobody can have cancelled it.
    """
    unknown = (ObjectNotFound, ValueError, HTTPError)
    with contextlib.suppress(*unknown), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run_id())).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False
