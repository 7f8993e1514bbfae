"""Prefect's settings for a stretch of this process, whether or not Prefect has been imported yet."""

from __future__ import annotations

import contextlib
import os
import re
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
_SERVER = ("PREFECT_API_URL", "PREFECT_HOME")
_DRAIN_SECONDS = 30.0


@contextlib.contextmanager
def connected(variables: Mapping[str, str]) -> Iterator[None]:
    """Prefect talks to the server that `variables` name, else to the user's own, while this lasts.

    Of other settings, the user's own go first. At the end the last events and log lines are sent, while the
    server still listens.
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
    """Set variables that the user did not set himself; put things back afterwards.

    The server is no matter of taste: who names one means that one, whatever the user's own is.
    """
    ours = {name: text for name, text in variables.items() if name in _SERVER or name not in os.environ}
    before = {name: os.environ[name] for name in ours if name in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)


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


def server_fault() -> str:
    """Why the server that Prefect is connected to is of no use, and what to do; empty where it answers."""
    from httpx import HTTPStatusError
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            return out_of_reach(error)
        try:
            client.hello()  # the health check asks for no login
        except HTTPStatusError as error:
            if error.response.status_code not in (401, 403):
                raise
            where = _without_login(f"the Prefect server {PREFECT_API_URL.value()}")
            login = "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY, here or in Prefect's profile"
            return f"{where} refuses the login ({error.response.status_code}); {login}"
    return ""


def is_outage(error: Exception) -> bool:
    """Whether Prefect's client met a server that did not answer, or could not; a refusal is an answer."""
    from httpx import HTTPStatusError, TransportError

    if isinstance(error, HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, TransportError)


def out_of_reach(error: Exception) -> str:
    """What an error of Prefect's client means to the user whose server it is."""
    from prefect.settings import PREFECT_API_URL

    said = " ".join(str(error).split()) or type(error).__name__
    text = f"the Prefect server {PREFECT_API_URL.value()} does not answer ({said:.200}); start it, or unset"
    text = f"{text} PREFECT_API_URL (here or in Prefect's profile) for a private server"
    return _without_login(text)


def _without_login(text: str) -> str:
    return re.sub(r"//[^/\s@]*@", "//", text)


def _drain() -> None:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_DRAIN_SECONDS, at_exit=False)
