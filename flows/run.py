"""Run the flow `synth` in this process: what `synth generate` and `synth resume` call.

Prefect is imported here and nowhere earlier, so that the command line answers at once.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.progress import Progress, RunSummary
from flows.server import SILENT, private_server
from synth_core.errors import UsageError
from synth_core.settings import Settings
from synth_core.store import Run, latest_unfinished_run, load_run

if TYPE_CHECKING:
    from flows.workshop import OpenWorkshop

# Prefect's own lines and tracebacks; what a person needs to know comes from the command itself.
_MUTED: dict[str, str] = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
_DRAIN_SECONDS = 30.0


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
    with _prefect(output_dir):
        from flows.synth import SESSION, Session, synth

        session = Session(earlier, observer)
        if open_workshop:
            session = Session(earlier, observer, open_workshop)
        token = SESSION.set(session)
        try:
            return synth(earlier.settings if earlier else settings.resolved())
        finally:
            SESSION.reset(token)


def _run_to_resume(settings: Settings, run_id: str) -> Run:
    if run_id:
        return load_run(settings.output_dir, run_id)
    run = latest_unfinished_run(settings.output_dir)
    if run is None:
        raise UsageError(f"every run in {settings.output_dir} is finished; there is nothing to resume")
    return run


@contextlib.contextmanager
def _prefect(output_dir: Path) -> Iterator[None]:
    """Prefect, silent, with a server to talk to; what it still holds is sent before the block ends."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment({**SILENT, **_MUTED}))
        if not _server_is_configured():
            server = stack.enter_context(private_server(output_dir))
            stack.enter_context(
                _environment({"PREFECT_API_URL": server.url, "PREFECT_HOME": str(server.home)})
            )
        from prefect.logging.configuration import setup_logging
        from prefect.settings import Settings as PrefectSettings
        from prefect.settings import temporary_settings

        fresh = PrefectSettings()  # the environment may have changed since Prefect was imported
        stack.enter_context(
            temporary_settings({"PREFECT_API_URL": fresh.api.url, "PREFECT_HOME": fresh.home})
        )
        setup_logging(incremental=True)
        stack.callback(_drain)
        yield


def _drain() -> None:
    """Send the last events and log lines while the server still listens."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_DRAIN_SECONDS, at_exit=False)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that the user did not set himself; put things back afterwards."""
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _server_is_configured() -> bool:
    """Whether the user has a server: asked without importing Prefect, which takes a second."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return False
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    return bool(profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL"))
