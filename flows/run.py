"""Run the flow `synth` in this process. `synth generate` and `synth resume` call this.

Prefect is imported here and nowhere earlier, so that the command line answers at once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from flows.pipeline.plan import Plan
from flows.pipeline.progress import Progress, RunSummary
from flows.prefect_server.connection import (
    MUTED,
    connected,
    environment,
    is_outage,
    out_of_reach,
    server_fault,
    server_is_configured,
)
from flows.prefect_server.server import SILENT, private_server
from flows.prefect_server.signals import sigterm_as_interrupt
from synth_core.errors import EnvironmentFault, SynthError
from synth_core.store import Run
from synth_core.store.runs import check_writable, room

if TYPE_CHECKING:
    from flows.pipeline.stages import OpenStages


_LEAST_FREE_MIB = 64


def run_synth(
    plan: Plan,
    *,
    observer: Callable[[Progress], None] | None = None,
    started: Callable[[Run], None] = lambda run: None,
    open_stages: OpenStages | None = None,
) -> RunSummary:
    """Carry out a plan and return its summary.

    The Prefect server is the one that PREFECT_API_URL or the active profile names. If neither names one, a
    private server starts and lives as long as this call.

    Args:
        plan: A new run (`plan_new`) or the rest of an earlier one (`plan_resume`).
        observer: Gets the progress a few times for each batch, from any thread.
        started: Gets the run as soon as it can be resumed.
        open_stages: Opens other stages than the real ones, for benchmarks and tests.

    Raises `UsageError`, `EnvironmentFault` and `KeyboardInterrupt`. All work finished by then is kept,
    and a resume continues from there.
    """
    output_dir = plan.run.output_dir
    check_writable(output_dir)
    _check_room(output_dir)
    with sigterm_as_interrupt(), _server(output_dir):
        from flows.synth import SESSION, Session, synth

        session = Session(plan, observer, started=started)
        if open_stages:
            session = replace(session, open_stages=open_stages)
        token = SESSION.set(session)
        try:
            return synth(plan.settings)
        except SynthError:
            raise
        except Exception:
            _check_room(output_dir)  # a full disk breaks the server in ways that look like our own fault
            raise
        finally:
            SESSION.reset(token)


def _check_room(output_dir: Path) -> None:
    """Raise `EnvironmentFault` if the disk is full. A server with a full disk only looks busy."""
    existing, free = room(output_dir)
    if free < _LEAST_FREE_MIB:
        raise EnvironmentFault(
            f"no space left on device: {free:.0f} MiB free in {existing}, a run needs {_LEAST_FREE_MIB};"
            " all existing files are intact"
        )


@contextlib.contextmanager
def _server(output_dir: Path) -> Iterator[None]:
    """Prefect without its own log lines, connected to a server."""
    quiet = {**SILENT, **MUTED}
    # Prefect logs a traceback for each task run that an interrupt cancels. No Prefect setting mutes it.
    logging.getLogger("concurrent.futures").setLevel(logging.CRITICAL + 1)
    logging.raiseExceptions = False  # if the server cannot store our logs, the failing call says so once
    if server_is_configured():
        with connected(quiet), _users_server():
            from flows.prefect_server.dead_runs import mark_dead_runs

            mark_dead_runs()
            yield
        return
    with private_server(output_dir) as server:
        own = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(server.home)}
        with environment(quiet), connected(own):
            from flows.prefect_server.dead_runs import mark_dead_runs

            # A private server ends with the run that started it. So each run that it lists as active is dead.
            mark_dead_runs(timedelta())
            yield


@contextlib.contextmanager
def _users_server() -> Iterator[None]:
    """The user's own server. If it is out of reach, that is not a fault of Synth."""
    from httpx import HTTPError

    if fault := server_fault():
        raise EnvironmentFault(fault)
    try:
        yield
    except HTTPError as error:
        if not is_outage(error):
            raise
        kept = "finished work is kept, and `synth resume` continues from there"
        raise EnvironmentFault(f"{out_of_reach(error)}; {kept}") from error
