"""What a person is told of a run while it goes on."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from flows.cli import progress_view
from flows.cli.progress_view import headline
from flows.pipeline.progress import ProgressTracker
from synth_core.providers.dispatch import Snapshot
from synth_core.records import Manifest, Stage

SPENT = Snapshot(
    calls=4,
    failed=0,
    from_cache=0,
    in_flight=2,
    input_tokens=10,
    output_tokens=10,
    cost_usd=None,
    unpriced_calls=4,
    calls_per_minute=29.6,
    answered=0,
)


def manifest(stage: Stage, total: int, alive: int) -> Manifest:
    return Manifest(path="", digest="", stage=stage, total=total, alive=alive)


def line(tracker: ProgressTracker, target: int = 0) -> str:
    tracker.began -= 100.0
    return headline(tracker.snapshot(), target)


def test_time_left_is_told_before_a_batch_has_come_through_in_order() -> None:
    tracker = ProgressTracker()
    tracker.plan(80, round=0)
    tracker.add(manifest(Stage.LLM, 80, 80))
    assert "left" not in line(tracker)  # answers are quick; what they are worth takes the time
    tracker.add(manifest(Stage.VALIDATE_COMPILE, 20, 15))
    tracker.began += 100.0
    assert "0/80 attempts · 0 accepted · 1:40 passed · about 5:00 left" in line(tracker)


def test_with_a_target_the_accepted_count() -> None:
    tracker = ProgressTracker()
    tracker.plan(60, round=1)
    tracker.add(manifest(Stage.VALIDATE_COMPILE, 30, 25))
    tracker.add(manifest(Stage.PERSIST, 30, 20))
    assert line(tracker, 50) == (
        "30/60 attempts · 20/50 accepted · yield 67% · round 2 · 1:40 passed · about 1:40 left"
    )


def test_spend_is_told_and_an_unknown_price_is_not_zero() -> None:
    tracker = ProgressTracker()
    tracker.plan(10, round=0)
    tracker.spend = lambda: SPENT
    assert "4 calls, 30 a minute · unpriced" in line(tracker)
    tracker.spend = lambda: replace(SPENT, cost_usd=1.5)
    assert "4 calls, 30 a minute · $1.50 · " in line(tracker)
    tracker.spend = lambda: replace(SPENT, cost_usd=1.5, answered=4)
    assert "4 calls, 30 a minute · $1.50 of about $3.75 · " in line(tracker)


def test_what_a_resumed_run_will_cost_counts_all_that_is_done() -> None:
    tracker = ProgressTracker(spend=lambda: replace(SPENT, cost_usd=9.1, answered=1))
    tracker.plan(100, round=0)
    tracker.add(manifest(Stage.LLM, 90, 90))  # from Prefect's cache: paid for in the session before
    tracker.add(manifest(Stage.LLM, 1, 1))
    assert "$9.10 of about $10.00" in line(tracker)


def test_what_a_run_with_a_target_will_cost_follows_its_yield() -> None:
    tracker = ProgressTracker(spend=lambda: replace(SPENT, cost_usd=1.0, answered=20))
    tracker.plan(50, round=0)
    tracker.add(manifest(Stage.VALIDATE_COMPILE, 20, 10))
    assert "$1.00 of about $5.00" in line(tracker, 50)  # 100 attempts at half the yield


def test_without_a_terminal_a_line_a_minute_comes_however_long_a_batch_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_view, "_MINUTE", 0.05)
    with progress_view.progress_view() as observe:
        tracker = ProgressTracker(observe)
        tracker.plan(8, round=0)
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert lines[-1].startswith("synth: 0/8 attempts · 0 accepted · 0:0")
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_time_left_of_a_resumed_run_counts_what_earlier_sessions_took() -> None:
    tracker = ProgressTracker(earlier_s=300.0)
    tracker.plan(80, round=0)
    tracker.add(manifest(Stage.VALIDATE_COMPILE, 40, 40))
    assert "6:40 passed · about 6:40 left" in line(tracker)
