"""One tiny call that says whether a provider answers, and a preview scaled up to the whole run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import candidates
from loopback import Act, Loopback, answer, error

from synth_core.providers.preflight import configured, estimate, probe
from synth_core.providers.table import find_provider
from synth_core.records import Category, Stage, Telemetry, Usage, Verdict
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


def test_an_estimate_scales_what_was_seen(make_settings: Make) -> None:
    settings = make_settings("openai", "", num_total_samples=1000)
    usage = Usage(input_tokens=100, output_tokens=300, cost_usd=0.001)
    paid = Telemetry(usage=usage, calls=1)
    tried = [c.model_copy(update={"telemetry": paid}) for c in candidates("openai", 5)]
    tried[0] = tried[0].judged(Verdict.fail(Stage.EXTRACT, Category.NO_CODE, "none"))
    whole = estimate(tried, settings, wall_s=10.0)
    low, likely, high = whole.accepted
    assert likely == 800
    assert 300 < low < 400  # five trials leave much open
    assert 950 < high < 1000
    assert (whole.calls, whole.tokens, whole.seconds) == (1000, 400_000, 2000.0)
    assert whole.cost_usd == pytest.approx(1.0)


def test_answers_from_the_cache_say_nothing_about_money(make_settings: Make) -> None:
    settings = make_settings("openai", "", num_total_samples=100)
    paid = Telemetry(usage=Usage(input_tokens=10, output_tokens=10, cost_usd=0.01), calls=1)
    tried = candidates("openai", 5)
    tried[0] = tried[0].model_copy(update={"telemetry": paid})
    assert estimate(tried, settings, wall_s=1.0).cost_usd == pytest.approx(1.0)
    unpriced = paid.model_copy(update={"usage": Usage(input_tokens=10)})
    tried[1] = tried[1].model_copy(update={"telemetry": unpriced})
    assert estimate(tried, settings, wall_s=1.0).cost_usd is None
