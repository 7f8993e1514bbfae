"""Set Prefect's settings for a while, whether or not Prefect has been imported yet."""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

# Mutes Prefect's own log lines and tracebacks. The command itself says what a person needs to know.
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
    """Connect Prefect to the server that `variables` name, else to the user's own, during the block.

    For all other settings, what the user has set wins over `variables`. At the end, the remaining events and
    log lines are sent while the server still listens.
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
    """Set the variables that the user has not set, and restore the environment afterwards.

    Variables that name the server are set even if the user has set them: the caller means that server.
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
    """Return whether the user has configured a server. Avoids importing Prefect, which takes a second."""
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
    """Return why the server cannot be used and what to do about it; empty if the server can be used."""
    from httpx import HTTPStatusError
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            return out_of_reach(error)
        try:
            client.hello()  # the health check needs no login
        except HTTPStatusError as error:
            if error.response.status_code not in (401, 403):
                raise
            where = _without_login(f"the Prefect server {PREFECT_API_URL.value()}")
            login = "set PREFECT_API_AUTH_STRING or PREFECT_API_KEY, here or in Prefect's profile"
            return f"{where} refuses the login ({error.response.status_code}); {login}"
    return ""


def is_outage(error: Exception) -> bool:
    """Return whether an error of Prefect's client means that the server is down. A refusal does not."""
    from httpx import HTTPStatusError, TransportError

    if isinstance(error, HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, TransportError)


def out_of_reach(error: Exception) -> str:
    """Return a message for the user whose server did not answer."""
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
