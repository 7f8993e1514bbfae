"""Prefect's settings for a stretch of this process, whether or not Prefect has been imported yet."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

# Prefect's own lines and tracebacks; what a person needs to know comes from the command itself.
MUTED: dict[str, str] = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
_DRAIN_SECONDS = 30.0


@contextlib.contextmanager
def connected(variables: Mapping[str, str]) -> Iterator[None]:
    """Prefect talks to the server that `variables` (and, before them, the user's own) name, while this lasts.

    At the end the last events and log lines are sent, while the server still listens.
    """
    with environment(variables):
        from prefect.logging.configuration import setup_logging
        from prefect.settings import Settings, temporary_settings

        fresh = Settings()  # the environment may have changed since Prefect was imported
        with temporary_settings({"PREFECT_API_URL": fresh.api.url, "PREFECT_HOME": fresh.home}):
            setup_logging(incremental=True)
            try:
                yield
            finally:
                _drain()


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables that the user did not set himself; put things back afterwards."""
    ours = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def server_is_configured() -> bool:
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


def _drain() -> None:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_DRAIN_SECONDS, at_exit=False)
