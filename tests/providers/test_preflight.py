"""One tiny call that says whether a provider answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from loopback import Act, Loopback, answer, error

from synth_core.providers.preflight import configured, probe
from synth_core.providers.table import find_provider
from synth_core.settings import Settings

Make = Callable[..., Settings]


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_a_provider_that_answers(wire: str, make_settings: Make) -> None:
    with Loopback(lambda seen: Act(body=answer(seen.wire, "ok", model="m-7"))) as server:
        found = probe(
            make_settings(wire, server.base_url(wire), provider={"retries": 9}), find_provider(wire)
        )
    assert found.ok
    assert "m-7 answered in" in found.detail
    assert "$0.0" in found.detail
    assert len(server.seen) == 1


def test_a_probe_is_never_answered_from_the_cache(make_settings: Make) -> None:
    with Loopback(lambda seen: Act(body=answer(seen.wire, "ok"))) as server:
        settings = make_settings("openai", server.base_url("openai"))
        assert probe(settings, find_provider("openai")).ok
        assert probe(settings, find_provider("openai")).ok
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "OPENAI_API_KEY"), (404, "--model-id"), (500, "transient: HTTP 500"), (429, "rate_limited")],
)
def test_a_provider_that_does_not(status: int, says: str, make_settings: Make) -> None:
    with Loopback(lambda seen: error(seen.wire, status, "no")) as server:
        found = probe(make_settings("openai", server.base_url("openai")), find_provider("openai"))
    assert not found.ok
    assert says in found.detail
    assert len(server.seen) == 1


def test_a_missing_key_is_a_finding(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    found = probe(make_settings("constructive", ""), find_provider("gemini"))
    assert not found.ok
    assert "GEMINI_API_KEY" in found.detail


def test_what_is_probed(make_settings: Make) -> None:
    names = [row.name for row in configured(make_settings("constructive", ""))]
    assert names == ["constructive", "gemini", "openai"]
