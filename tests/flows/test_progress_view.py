"""What a person is told of a run while it goes on."""

from __future__ import annotations

from types import SimpleNamespace

from flows.progress import Tally
from flows.progress_view import headline
from synth_core.records import Manifest, Stage


def manifest(stage: Stage, total: int, alive: int) -> Manifest:
    return Manifest(path="", digest="", stage=stage, total=total, alive=alive)


def line(tally: Tally, target: int = 0) -> str:
    tally.began -= 100.0
    return headline(tally.snapshot(), target)


def test_time_left_is_told_before_a_batch_has_come_through_in_order() -> None:
    tally = Tally()
    tally.plan(80, round=0)
    tally.add(manifest(Stage.LLM, 80, 80))
    assert "left" not in line(tally)  # answers are quick; what they are worth takes the time
    tally.add(manifest(Stage.VALIDATE_COMPILE, 20, 15))
    tally.began += 100.0
    assert "0/80 attempts · 0 accepted · 1:40 gone · about 5:00 left" in line(tally)


def test_with_a_target_the_accepted_count() -> None:
    tally = Tally()
    tally.plan(60, round=1)
    tally.add(manifest(Stage.VALIDATE_COMPILE, 30, 25))
    tally.add(manifest(Stage.PERSIST, 30, 20))
    assert line(tally, 50) == (
        "30/60 attempts · 20/50 accepted · yield 67% · round 2 · 1:40 gone · about 1:40 left"
    )


def test_spend_is_told_and_an_unknown_price_is_not_zero() -> None:
    tally = Tally()
    tally.plan(10, round=0)
    tally.spend = lambda: SimpleNamespace(calls=4, cost_usd=None)
    assert "4 calls · unpriced" in line(tally)
    tally.spend = lambda: SimpleNamespace(calls=4, cost_usd=1.5)
    assert "4 calls · $1.50" in line(tally)
