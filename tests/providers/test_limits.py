"""Pace and width against simulated servers that count calls in all the ways that providers do.

Virtual time: three minutes take milliseconds. Each server grants 600 calls a minute and answers after 2 s; a
refusal comes after `round_trip` seconds.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable

import pytest

from synth_core.providers.limits import Pace, TokenAllowance, Width

_RATE, _LATENCY, _MINUTES = 10.0, 2.0, 3
Server = Callable[[float], float | None]  # moment -> None if granted, else seconds to wait


def _bucket(size: float) -> Server:
    level, filled = size, 0.0

    def ask(now: float) -> float | None:
        nonlocal level, filled
        level, filled = min(size, level + (now - filled) * _RATE), now
        if level >= 1:
            level -= 1
            return None
        return (1 - level) / _RATE

    return ask


def _fixed(window: float, phase: float = 0.0) -> Server:
    used: dict[int, int] = {}

    def ask(now: float) -> float | None:
        number = int((now + phase) // window)
        if used.get(number, 0) < _RATE * window:
            used[number] = used.get(number, 0) + 1
            return None
        return (number + 1) * window - phase - now

    return ask


def _sliding(window: float) -> Server:
    recent: deque[float] = deque()

    def ask(now: float) -> float | None:
        while recent and recent[0] <= now - window:
            recent.popleft()
        if len(recent) < _RATE * window:
            recent.append(now)
            return None
        return recent[0] + window - now

    return ask


def _run(server: Server, *, hint: str, round_trip: float, jitter: float = 0.0) -> tuple[int, list[float]]:
    """Calls granted within three minutes, and the moments of the refusals.

    jitter: mean of what each way takes longer than it should, exponentially distributed.
    """
    rng = random.Random(7)
    pace, width = Pace(), Width(64)
    now, in_flight, granted = 0.0, 0, 0
    refusals: list[float] = []
    # (moment, started, None while it is on its way to the server, else the answer as a one-tuple)
    events: list[tuple[float, float, tuple[float | None] | None]] = []

    def late() -> float:
        return rng.expovariate(1 / jitter) if jitter else 0.0

    while now < _MINUTES * 60:
        while events and events[0][0] <= now:
            at, started, answer = heapq.heappop(events)
            if answer is None:
                wait = server(at)
                granted += wait is None
                refusals += [at] if wait is not None else []
                takes = _LATENCY if wait is None else round_trip
                heapq.heappush(events, (at + takes + late(), started, (wait,)))
                continue
            in_flight -= 1
            if (wait := answer[0]) is None:
                width.succeed(at - started)
            else:
                told = {"none": None, "exact": wait, "whole seconds": math.ceil(wait)}[hint]
                pace.refuse(at, started, told)
        delay = pace.delay(now)
        if delay == 0 and in_flight < width.limit:
            pace.start(now, width.gap)
            in_flight += 1
            heapq.heappush(events, (now + late(), now, None))
            continue
        moments = [events[0][0]] if events else []
        moments += [now + delay] if in_flight < width.limit else []
        now = max(now + 1e-6, min(moments))
    return granted, refusals


@pytest.mark.parametrize("round_trip", [0.003, 0.08])
@pytest.mark.parametrize("hint", ["none", "exact", "whole seconds"])
@pytest.mark.parametrize(
    ("server", "least"),
    [
        (lambda: _bucket(10), 0.95),
        (lambda: _bucket(60), 0.95),
        (lambda: _bucket(600), 0.95),
        (lambda: _fixed(60), 0.95),
        (lambda: _fixed(60, phase=37), 0.95),
        (lambda: _fixed(1), 0.80),
        (lambda: _sliding(60), 0.95),
        (lambda: _sliding(10), 0.90),
    ],
    ids=[
        "bucket 10",
        "bucket 60",
        "bucket 600",
        "minute",
        "minute from the middle",
        "second",
        "sliding 60",
        "sliding 10",
    ],
)
def test_what_is_allowed_is_used_and_little_more_is_asked(
    server: Callable[[], Server], least: float, hint: str, round_trip: float
) -> None:
    granted, refusals = _run(server(), hint=hint, round_trip=round_trip)
    allowed = _RATE * 60 * _MINUTES
    late = sum(1 for moment in refusals if moment > 20)
    assert granted >= least * allowed
    assert late / (granted + len(refusals)) < 0.03


@pytest.mark.parametrize("hint", ["none", "exact"])
@pytest.mark.parametrize(
    "server",
    [lambda: _bucket(10), lambda: _bucket(60), lambda: _fixed(60), lambda: _sliding(60)],
    ids=["bucket 10", "bucket 60", "minute", "sliding 60"],
)
def test_a_busy_machine_does_not_mislead(server: Callable[[], Server], hint: str) -> None:
    """Calls and answers that overtake each other must not look like a server that grants less."""
    granted, refusals = _run(server(), hint=hint, round_trip=0.01, jitter=0.03)
    assert granted >= 0.95 * _RATE * 60 * _MINUTES
    assert sum(1 for moment in refusals if moment > 20) / (granted + len(refusals)) < 0.03


def test_a_limit_of_the_users_own_is_kept() -> None:
    pace = Pace(allowed=5.0)
    now, starts = 100.0, []
    while now < 160.0:
        if (delay := pace.delay(now)) > 0:
            now += delay
            continue
        pace.start(now)
        starts.append(now)
    assert 295 <= len(starts) <= 302
    assert max(sum(1 for at in starts if begin <= at < begin + 1) for begin in range(100, 159)) <= 7


def test_a_hint_pauses_every_call() -> None:
    pace = Pace()
    pace.start(10.0)
    pace.refuse(10.1, 10.0, 30.0)
    assert pace.delay(10.2) == pytest.approx(29.9)
    assert pace.delay(40.2) == 0.0


def test_width_doubles_then_halves_once_a_round_trip() -> None:
    width = Width(64)
    assert width.limit == 8
    for _ in range(8):
        width.succeed(1.0)
    assert width.limit == 16
    for _ in range(10):  # a volley of overloads that all started before the first was heard of
        width.overload(20.0, 19.0)
    assert width.limit == 8
    width.overload(22.0, 21.0)
    assert width.limit == 4
    for _ in range(4):
        width.succeed(1.0)
    assert width.limit == 4 + 0  # now one more a round trip, not double
    width.succeed(1.0)
    assert width.limit == 5


@pytest.mark.parametrize("sigma", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_latencies_that_only_vary_let_the_width_grow(sigma: float, seed: int) -> None:
    """Lognormal, as those of answers of different lengths: nothing here depends on the width."""
    rng = random.Random(seed)
    width = Width(64)
    for _ in range(300):
        width.succeed(5.0 * rng.lognormvariate(0.0, sigma))
    assert width.limit == 64


@pytest.mark.parametrize("size", [10, 100, 1500])
def test_no_minute_holds_more_tokens_than_are_allowed(size: int) -> None:
    allowance = TokenAllowance(6000)
    now, starts = 100.0, []
    while now < 400.0:
        if (delay := allowance.delay(now, size)) > 0:
            now += delay + 1e-9
            continue
        allowance.take(size)
        starts.append(now)
    busiest = max(sum(size for at in starts if begin <= at < begin + 60) for begin in starts)
    assert busiest <= 6000 + max(size, 100)
    assert sum(size for _ in starts) >= 0.99 * 6000 * 5  # and the allowance is used


def test_tokens_are_taken_before_and_corrected_after() -> None:
    allowance = TokenAllowance(6000)
    assert allowance.delay(1.0, 1000) == 0.0
    allowance.take(1000)
    assert allowance.delay(1.0, 1000) == pytest.approx(10.0)
    allowance.take(-600)
    assert allowance.delay(1.0, 1000) == pytest.approx(4.0)
    assert allowance.delay(5.0, 1000) == 0.0
    assert TokenAllowance(0).delay(1.0, 10**9) == 0.0
