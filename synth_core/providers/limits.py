"""Limits for the calls to one (provider, model): a rate learned from refusals, a concurrency from latency.

Two signals have two effects. A 429 means that calls come too often, so it lowers the rate (`Pace`). To halve
the number in flight instead would leave most of the allowance unused. A 503, a timeout or a growing latency
means that the server has too many calls at once, so it lowers the concurrency (`Width`). vLLM, for example,
queues calls and never sends a 429.

Both classes are arithmetic on times that the caller passes in. They use no clock and no event loop, so a test
simulates hours in milliseconds. Times are seconds on any monotonic clock. Rates are calls per second.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_SHORTEST_SAMPLE = 3.0  # seconds since a refusal; over a shorter time no rate can be measured
_REMEMBERED = 75.0  # seconds; refusals are remembered a little longer than the minute that providers count
# Without a hint: the pause after the first refusal. It doubles with each further refusal, up to `_SHORT_CAP`,
# or up to `_LONG_CAP` once the outage has lasted `_LONG_OUTAGE` seconds.
_FIRST_PAUSE = 0.1
_SHORT_CAP, _LONG_CAP, _LONG_OUTAGE = 10.0, 30.0, 75.0
_BACK_OFF = 0.98  # the rate after a refusal, as a share of the granted rate
_STEP_DOWN = 0.85  # the rate after two refusals close together, as a share of the old rate …
_STEADY = 0.95  # … but at least this share of the rate that was last seen to be granted
_FIRST_RATE = 4.0  # least rate after the very first refusal
_GROWTH, _LEAST_GROWTH = 0.25, 0.001  # relative growth of the rate per second: at first, and at least
_OFTEN, _SELDOM = 5.0, 20.0  # refusals closer than 5 s halve the growth; more than 20 s apart double it
_BURST = 0.2  # seconds; calls that are late by up to this much may start at once

_LATENCY_LIMIT = 3.0  # the width does not grow while calls take this many times the base latency
_BLOCK, _BLOCKS = 16, 512  # answers in a block of latencies, and blocks that are remembered


@dataclass
class _Mark:
    """A moment at which the server refused: the time, calls accepted so far, and the rate from then on."""

    at: float
    accepted: int
    rate: float


class Pace:
    """Decides when the next call may start.

    The allowed rate is measured between two refusals: the number of calls that the server accepted, divided
    by the time. This holds for a token bucket, a fixed window and a sliding window. After a refusal the rate
    grows again; the more often refusals come, the slower it grows. A hint from the server (Retry-After)
    pauses all calls. Without a hint, the pauses double.
    """

    def __init__(self, allowed: float = 0.0) -> None:
        """allowed: the highest rate that the user allows, in calls per second. 0: no limit."""
        self._ceiling = allowed or float("inf")
        self.rate = self._ceiling
        self.paused_until = 0.0
        self._next = 0.0  # when the next call may start
        self._growth = _GROWTH
        self._grown_at = 0.0
        self._accepted = 0  # calls started and not refused
        self._marks: deque[_Mark] = deque()  # moments at which the server refused
        self._last_refusal = float("-inf")
        self._granted = 0.0  # calls per second that the server was last seen to grant in a window
        self._shut = float("-inf")  # when it last refused all calls for seconds
        self._outage_began = 0.0
        self._pauses = 0  # since a call was last accepted
        self._probing: float | None = None  # start of the first call since a refusal
        self._refusal_mean = 0.1  # seconds from a call to its refusal: mean …
        self._refusal_deviation = 0.03  # … and mean deviation

    def delay(self, now: float) -> float:
        """Seconds until a call may start. 0 means now."""
        self._grow(now)
        return max(0.0, self._next - now, self.paused_until - now)

    def start(self, now: float, gap: float = 0.0) -> None:
        """Record that a call starts. The next one comes at least `gap` seconds later, at any rate."""
        if not self._marks:
            self._marks.append(_Mark(now, 0, self.rate))  # the beginning counts as the first mark
        gap = max(gap, 1 / self.rate)
        if self._probing is None:
            # The first call after a refusal goes alone. The next waits until a refusal would have come.
            self._probing = now
            self._next = now + max(gap, self._refusal_within)
        else:
            self._next = max(self._next, now - _BURST) + gap
        self._accepted += 1

    def pause(self, until: float) -> None:
        """Start no call before `until`."""
        self.paused_until = max(self.paused_until, until)

    def refuse(self, now: float, started: float, hint: float | None) -> None:
        """Record that the call that started at `started` was refused with a rate limit.

        hint: seconds that the server asks us to wait, or None.
        """
        self._accepted -= 1
        off = now - started - self._refusal_mean
        self._refusal_mean += off / 4
        self._refusal_deviation += (abs(off) - self._refusal_deviation) / 4
        if hint is not None:
            self.pause(now + hint)
        if started <= self._last_refusal:  # it started before an earlier refusal, which already took effect
            if started <= self._marks[-1].at:
                self._marks[-1].accepted -= 1
            return
        self._last_refusal = now
        # Answers take long, so the first call counts as accepted once the time for its refusal has passed.
        first, self._probing = self._probing, None
        if first is not None and started > first and now - first > self._refusal_within:
            self._learn(now)
            self._outage_began = now
            self._pauses = 0
        if hint is None:
            cap = _SHORT_CAP if now - self._outage_began < _LONG_OUTAGE else _LONG_CAP
            self.paused_until = now + min(cap, _FIRST_PAUSE * 2**self._pauses)
        self._pauses += 1
        if self.paused_until > now + _SHORTEST_SAMPLE:
            self._shut = now

    @property
    def _refusal_within(self) -> float:
        """Seconds after which a refusal is no longer expected: mean plus four mean deviations."""
        return self._refusal_mean + 4 * self._refusal_deviation

    def _learn(self, now: float) -> None:
        """Lower the rate at a refusal that follows accepted calls."""
        marks = self._marks
        while len(marks) > 1 and marks[0].at < now - _REMEMBERED:
            marks.popleft()
        apart = now - marks[-1].at
        if self.rate == float("inf"):
            self.rate = max(_FIRST_RATE, self._accepted / max(1.0, now - marks[0].at))
        elif apart < _SHORTEST_SAMPLE:
            # Not far below the rate measured over a longer time: a short burst was refused, not the minute.
            self.rate = max(self.rate * _STEP_DOWN, min(self.rate, _STEADY * self._granted))
        else:
            # The maximum over all marks: after an early exhausted window, a recent mark alone shows almost 0.
            usable = [mark for mark in marks if mark.at <= now - _SHORTEST_SAMPLE]
            granted, asked = max(
                ((self._accepted - mark.accepted) / (now - mark.at), mark.rate) for mark in usable
            )
            if asked > 1.2 * granted:  # we asked too often all the time, so `granted` is the server's limit
                self.rate = granted * _BACK_OFF
                # Only a window refuses everything for seconds. A bucket may just have granted its first fill.
                self._granted = granted if now - self._shut < _REMEMBERED else 0.0
                self._growth = _LEAST_GROWTH
            else:  # the limit is between the granted and the asked rate
                self.rate = min(self.rate, (self.rate * granted) ** 0.5) * _BACK_OFF
        self.rate = max(self.rate, 0.01)
        change = 0.5 if apart < _OFTEN else 2.0 if apart > _SELDOM else 1.0
        self._growth = min(_GROWTH, max(_LEAST_GROWTH, self._growth * change))
        self._grown_at = now
        marks.append(_Mark(now, self._accepted, self.rate))

    def _grow(self, now: float) -> None:
        passed = now - self._grown_at
        self._grown_at = now
        if self.rate < self._ceiling:
            if now - self._last_refusal > (_REMEMBERED if self._granted else _SELDOM):
                self._growth = min(_GROWTH, self._growth * 2 ** (passed / 10))
            self.rate = min(self._ceiling, self.rate * (1 + self._growth * passed))


class Width:
    """Decides how many calls may be in flight at once.

    The limit doubles each round trip until the first sign of overload. Then it grows by one each round trip.
    It is halved, at most once each round trip, when the server reports overload.

    It does not grow while calls take more than `_LATENCY_LIMIT` times the base latency. After half a block of
    such answers in a row, it stops doubling for good. Single latencies of one server differ by more than that
    factor, so lower quartiles are compared: that of the last `_BLOCK` answers with that of the best block.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._exact = float(min(8, most))
        self._doubling = True
        self._last_cut = 0.0
        self._block: deque[float] = deque(maxlen=_BLOCK)  # the last latencies
        self._quartiles: deque[float] = deque(maxlen=_BLOCKS)  # of complete blocks
        self._in_block = 0
        self._slow = 0  # answers in a row above the latency limit
        self._base = 0.0

    @property
    def limit(self) -> int:
        return int(self._exact)

    def succeed(self, seconds: float) -> None:
        """Record a good answer that took `seconds`."""
        self._block.append(seconds)
        recent = sorted(self._block)[len(self._block) // 4]
        self._in_block += 1
        if self._in_block == _BLOCK:
            self._in_block = 0
            self._quartiles.append(recent)
            self._base = min(self._quartiles)
        elif not self._quartiles:
            self._base = recent
        if recent <= _LATENCY_LIMIT * self._base:
            self._exact = min(self._most, self._exact + (1.0 if self._doubling else 1.0 / self._exact))
            self._slow = 0
            return
        self._slow += 1
        self._doubling = self._doubling and self._slow < _BLOCK // 2

    @property
    def gap(self) -> float:
        """Seconds between two starts. It spreads the starts, so that one call hits a limit instead of many.

        0.8 of the base latency divided by the width: short enough to keep the full width in use.
        """
        return 0.8 * self._base / self._exact

    def overload(self, now: float, started: float) -> None:
        """Record that a call that started at `started` met an overloaded server (503, 529) or a timeout."""
        self._doubling = False
        if started >= self._last_cut:
            self._exact = max(1.0, self._exact / 2)
            self._last_cut = now


class TokenAllowance:
    """The user's limit of tokens per minute: an estimate is taken before a call and corrected after it.

    A token bucket that holds one second of the allowance. A larger bucket would let one minute contain the
    saved tokens plus a full minute's allowance. A call larger than the bucket starts when the bucket is full;
    the bucket is then negative, and the next call waits until it is filled again.
    """

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._left = self._most = self._rate
        self._at = 0.0

    def delay(self, now: float, estimate: int) -> float:
        """Seconds until a call of `estimate` tokens may start."""
        if not self._rate:
            return 0.0
        self._left = min(self._most, self._left + (now - self._at) * self._rate) if self._at else self._left
        self._at = now
        return max(0.0, (min(estimate, self._most) - self._left) / self._rate)

    def take(self, tokens: int) -> None:
        """Take tokens. A negative number gives tokens back."""
        self._left -= tokens
