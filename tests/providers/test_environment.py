"""What lies in the environment or is installed changes neither where a key goes nor how it is sent there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asking import candidates
from google.genai import _api_client
from loopback import Act, Loopback, answer

from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Candidate
from synth_core.settings import Settings

_HOSTS = {"openai": "api.openai.com:443", "gemini": "generativelanguage.googleapis.com:443"}


@pytest.mark.parametrize("wire", _HOSTS)
def test_an_address_in_the_environment_is_not_the_users_choice(
    wire: str, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy sees where the call really goes, and lets none through."""
    with Loopback(lambda _: Act(body=answer(wire, "from elsewhere"))) as elsewhere:
        monkeypatch.setenv("OPENAI_BASE_URL", elsewhere.base_url("openai"))
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", elsewhere.base_url("gemini"))
        monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
        monkeypatch.setenv("GOOGLE_GENAI_USE_ENTERPRISE", "true")
        monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", elsewhere.base_url("gemini"))
        with Loopback(lambda _: Act(403)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            with Dispatcher(make_settings(wire, "")) as dispatcher:
                (done,) = dispatcher.complete(candidates(wire, 1))
    assert not done.alive
    assert elsewhere.seen == []
    assert [(seen.method, seen.path) for seen in proxy.seen] == [("CONNECT", _HOSTS[wire])]


def _ask_gemini(make_settings: Callable[..., Settings]) -> tuple[Candidate, Loopback]:
    with (
        Loopback(lambda seen: Act(body=answer(seen.wire, "hello"))) as server,
        Dispatcher(make_settings("gemini", server.base_url("gemini"))) as dispatcher,
    ):
        (done,) = dispatcher.complete(candidates("gemini", 1))
    return done, server


def test_gemini_is_not_asked_by_aiohttp_where_that_is_installed(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK takes it as soon as it thinks that it is there, and here it is not."""
    monkeypatch.setattr(_api_client, "has_aiohttp", True)
    done, _ = _ask_gemini(make_settings)
    assert done.alive


def test_gemini_is_asked_by_the_same_library_whatever_the_environment_wants(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_GENAI_HTTP_CLIENT", "httpx")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v9")
    done, server = _ask_gemini(make_settings)
    assert done.alive
    assert server.seen[0].path.startswith("/v1beta/models/")
