"""Run the flow `synth` in this process: what `synth generate` and `synth resume` call.

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
from synth_core.settings import BudgetSettings, Settings
from synth_core.store import Run, latest_run, latest_unfinished_run, load_run, refuse_pruned
from synth_core.store.runs import check_writable, room

if TYPE_CHECKING:
    from flows.pipeline.stages import OpenStages


_LEAST_FREE_MIB = 64


def run_synth(
    settings: Settings,
    *,
    observer: Callable[[Progress], None] | None = None,
    started: Callable[[Run], None] = lambda run: None,
    resume: str | None = None,
    open_stages: OpenStages | None = None,
) -> RunSummary:
    """Make a run, or go on with one, and return what it came to.

    observer: told of progress, from any thread, a few times a batch.
    started: told of the run as soon as it can be resumed.
    resume: id of a run in `settings.output_dir`, or "" as for `run_to_resume`; that run's settings hold then,
        but for the budgets that `settings` give.
    open_stages: stages other than the real ones, for benchmarks and tests.

    The Prefect server is the one that PREFECT_API_URL or the active profile names, else a private one that
    lives as long as the call. Raises `UsageError`, `EnvironmentFault` and `KeyboardInterrupt`; what was
    finished by then is kept, and `resume` goes on from there.
    """
    earlier = None
    if resume is not None:
        earlier = with_budget(run_to_resume(settings.output_dir, resume), settings.budget)
    output_dir = Path((earlier.settings if earlier else settings).resolved().output_dir)
    check_writable(output_dir)
    _check_room(output_dir)
    with sigterm_as_interrupt(), _server(output_dir):
        from flows.synth import SESSION, Session, synth

        session = Session(earlier, observer, started=started)
        if open_stages:
            session = replace(session, open_stages=open_stages)
        token = SESSION.set(session)
        try:
            return synth(earlier.settings if earlier else settings.resolved())
        except SynthError:
            raise
        except Exception:
            _check_room(output_dir)  # what a full disk does to the server looks like a fault of ours
            raise
        finally:
            SESSION.reset(token)


def _check_room(output_dir: Path) -> None:
    """A server that cannot write its database only looks busy; so a full disk is said beforehand."""
    existing, free = room(output_dir)
    if free < _LEAST_FREE_MIB:
        raise EnvironmentFault(
            f"no space left on device: {free:.0f} MiB free in {existing}, a run needs {_LEAST_FREE_MIB};"
            " what is there already is intact"
        )


def run_to_resume(output_dir: Path | str, run_id: str = "") -> Run:
    """The run of that id; without one the newest that did not complete, else the newest.

    Going on with a completed run does nothing but write its report, which a kill may have prevented. Raises
    `UsageError` for one whose shards were dropped since.
    """
    if run_id:
        run = load_run(output_dir, run_id)
    else:
        run = latest_unfinished_run(output_dir) or latest_run(output_dir)
    refuse_pruned(run)
    return run


def with_budget(run: Run, given: BudgetSettings) -> Run:
    """The run with the limits that are given (not 0) instead of its own."""
    limits = {name: limit for name, limit in given if limit}
    budget = run.settings.budget.model_copy(update=limits)
    return run.model_copy(update={"settings": run.settings.model_copy(update={"budget": budget})})


@contextlib.contextmanager
def _server(output_dir: Path) -> Iterator[None]:
    """Prefect, silent, with a server to talk to."""
    quiet = {**SILENT, **MUTED}
    # Prefect logs a traceback for each task run that an interrupt cancels, and no level of its own mutes it.
    logging.getLogger("concurrent.futures").setLevel(logging.CRITICAL + 1)
    logging.raiseExceptions = False  # a server that can't keep our logs is told of once, by what fails
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

            mark_dead_runs(
                timedelta()
            )  # whose runs were this server's has ended, for it ends with its parent
            yield


@contextlib.contextmanager
def _users_server() -> Iterator[None]:
    """A server that is not ours to start: where it is out of reach, that is no fault of Synth."""
    from httpx import HTTPError

    if fault := server_fault():
        raise EnvironmentFault(fault)
    try:
        yield
    except HTTPError as error:
        if not is_outage(error):
            raise
        kept = "what is finished is kept, and `synth resume` goes on from there"
        raise EnvironmentFault(f"{out_of_reach(error)}; {kept}") from error
