"""Run the flow `synth` in this process: what `synth generate` and `synth resume` call.

Prefect is imported here and nowhere earlier, so that the command line answers at once.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.connection import MUTED, connected, environment, server_is_configured
from flows.progress import Progress, RunSummary
from flows.server import SILENT, private_server
from flows.signals import sigterm_as_interrupt
from synth_core.errors import EnvironmentFault, UsageError
from synth_core.settings import Settings
from synth_core.store import Run, latest_unfinished_run, load_run
from synth_core.store.runs import check_writable

if TYPE_CHECKING:
    from flows.workshop import OpenWorkshop


_LEAST_FREE_MIB = 64


def run_synth(
    settings: Settings,
    *,
    observer: Callable[[Progress], None] | None = None,
    resume: str | None = None,
    open_workshop: OpenWorkshop | None = None,
) -> RunSummary:
    """Make a run, or go on with one, and return what it came to.

    observer: told of progress, from any thread, a few times a batch.
    resume: id of a run in `settings.output_dir`, or "" for its newest unfinished one; that run's settings
        hold then.
    open_workshop: stages other than the real ones, for benchmarks and tests.

    The Prefect server is the one that PREFECT_API_URL or the active profile names, else a private one that
    lives as long as the call. Raises `UsageError`, `EnvironmentFault` and `KeyboardInterrupt`; what was
    finished by then is kept, and `resume` goes on from there.
    """
    earlier = _run_to_resume(settings, resume) if resume is not None else None
    output_dir = Path((earlier.settings if earlier else settings).resolved().output_dir)
    check_writable(output_dir)
    _check_room(output_dir)
    with sigterm_as_interrupt(), _server(output_dir):
        from flows.synth import SESSION, Session, synth

        session = Session(earlier, observer)
        if open_workshop:
            session = Session(earlier, observer, open_workshop)
        token = SESSION.set(session)
        try:
            return synth(earlier.settings if earlier else settings.resolved())
        finally:
            SESSION.reset(token)


def _check_room(output_dir: Path) -> None:
    """A server that cannot write its database only looks busy; so a full disk is said beforehand."""
    existing = next(folder for folder in (output_dir, *output_dir.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 2**20
    if free < _LEAST_FREE_MIB:
        raise EnvironmentFault(
            f"the disk is full: {free:.0f} MiB free in {existing}, a run needs {_LEAST_FREE_MIB}"
            " to begin; what is there already is intact"
        )


def _run_to_resume(settings: Settings, run_id: str) -> Run:
    if run_id:
        return load_run(settings.output_dir, run_id)
    run = latest_unfinished_run(settings.output_dir)
    if run is None:
        raise UsageError(f"every run in {settings.output_dir} is finished; there is nothing to resume")
    return run


@contextlib.contextmanager
def _server(output_dir: Path) -> Iterator[None]:
    """Prefect, silent, with a server to talk to."""
    quiet = {**SILENT, **MUTED}
    # Prefect logs a traceback for each task run that an interrupt cancels, and no level of its own mutes it.
    logging.getLogger("concurrent.futures").setLevel(logging.CRITICAL + 1)
    if server_is_configured():
        with connected(quiet):
            yield
        return
    with private_server(output_dir) as server:
        own = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(server.home)}
        with environment(quiet), connected(own):
            yield
