"""A preview scaled up to the whole run."""

from __future__ import annotations

from typing import Any

import pytest

from synth_core.records import Candidate, Category, Specification, Stage, Telemetry, Usage, Verdict
from synth_core.reporting.estimate import Estimate, estimate
from synth_core.settings import Settings


def tried(count: int, **telemetry: Any) -> list[Candidate]:
    specification = Specification(
        operators=("ReLU",), strategy="s", seed=1, provider="p", prompt="plan", temperature=1.0
    )
    carried = Telemetry(**telemetry)
    return [Candidate(index=i, specification=specification, telemetry=carried) for i in range(count)]


def scaled(candidates: list[Candidate], *, judging_s: float = 0.1, **options: Any) -> Estimate:
    settings = Settings.model_validate({"model_name": "openai", "num_total_samples": 1000, **options})
    return estimate(candidates, settings, writing_s=0.3, judging_s=judging_s)


def paid(cost: float | None = 0.001) -> dict[str, Any]:
    usage = Usage(input_tokens=100, output_tokens=300, cost_usd=cost)
    return {"usage": usage, "calls": 1, "seconds": {"llm": 6.4}}


def failing(candidates: list[Candidate], category: Category) -> list[Candidate]:
    first, *others = candidates
    return [first.judged(Verdict.fail(Stage.EXTRACT, category, "none")), *others]


def test_what_was_seen_is_scaled() -> None:
    whole = scaled(failing(tried(5, **paid()), Category.DUPLICATE))
    low, likely, high = whole.accepted
    assert (likely, whole.further) == (800, 0)
    assert 300 < low < 400  # five trials leave much open
    assert 950 < high <= 1000
    assert (whole.calls, whole.tokens) == (1000, 400_000)
    assert whole.cost_usd == pytest.approx(1.0)


def test_batch_mode_costs_half_of_what_a_preview_pays() -> None:
    direct, jobs = (scaled(tried(5, **paid()), provider={"batch": batch}) for batch in (False, True))
    assert direct.cost_usd == pytest.approx(1.0)
    assert jobs.cost_usd == pytest.approx(0.5)
    assert direct.calls == jobs.calls


def test_further_attempts_cost_too() -> None:
    candidates = failing(tried(5, **paid()), Category.NO_CODE)
    again = scaled(candidates, max_retries=2)
    assert (again.attempts, again.further, again.accepted[1]) == (1000, 240, 992)
    assert again.calls == 1240
    assert again.accepted[2] == 1000  # never more than one a candidate
    assert scaled(candidates, on_failure="drop").further == 0
    assert scaled(candidates, max_retries=0).further == 0


@pytest.mark.parametrize(
    ("options", "judging_s", "seconds"),
    [
        ({}, 0.05, 100.0),  # 64 calls at once, each of 6.4 s
        ({"provider": {"concurrency": 8}}, 0.05, 800.0),
        ({"provider": {"rpm": 60}}, 0.05, 1000.0),
        ({}, 0.5, 500.0),  # judging is what takes long
        ({"model_name": "constructive"}, 0.5, 800.0),  # the same cores write and judge
    ],
)
def test_the_slower_of_asking_and_judging_tells(
    options: dict[str, Any], judging_s: float, seconds: float
) -> None:
    assert scaled(tried(4, **paid()), judging_s=judging_s, **options).seconds == pytest.approx(seconds)


def test_answers_from_the_cache_say_nothing_about_money() -> None:
    candidates = [*tried(1, **paid(0.01)), *tried(4)]
    assert scaled(candidates, num_total_samples=100).cost_usd == pytest.approx(1.0)
    assert scaled([*candidates, *tried(1, **paid(None))]).cost_usd is None
