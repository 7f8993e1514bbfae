"""How fast and how wide one (provider, model) is called: a rate learned from refusals, a width from latency.

Two signals, two answers. A 429 says that calls come too often, so it slows the *pace*; halving the number in
flight instead would leave most of an allowance unused. A 503, a timeout or a latency that grows says that the
server has too much at once, so it narrows the *width* (vLLM queues and never sends a 429).

Both classes are plain arithmetic on times that the caller passes in: no clock, no event loop, so that
tests drive hours of them in milliseconds. Times are seconds on any one monotonic clock, rates are calls a
second.
"""

from __future__ import annotations

from collections import deque

_MIN_INTERVAL = 3.0  # shortest time between two refusals that tells a rate
_KEPT = 60.0  # how far back refusals are remembered
_FIRST_PAUSE = 0.25  # without a hint: pause after the first refusal, doubled while refusals go on …
_SHORT_PAUSE, _LONG_PAUSE, _PATIENCE = 4.0, 30.0, 75.0  # … up to the short cap, after `_PATIENCE` to the long
_BACK_OFF = 0.98  # pace after a refusal, as a share of what was accepted
_CREEP, _RUN, _RUN_AFTER = 0.001, 0.01, 90.0  # growth of the pace a second, and when to grow faster
_BURST = 0.2  # seconds of calls that may be caught up at once

_LATENCY_LIMIT = 3.0  # no wider while calls take this many times the best latency


class Pace:
    """When the next call may start.

    The allowed rate is read off between refusals: what a server accepted from one moment of exhaustion to
    the next is what it grants, whether it counts by token bucket, fixed or sliding window. From there the
    pace creeps upwards until the next refusal. A server's hint (Retry-After) pauses every call.
    """

    def __init__(self, allowed: float = 0.0) -> None:
        """allowed: calls a second that the user allows at most; 0: no limit of our own."""
        self._ceiling = allowed or float("inf")
        self.rate = self._ceiling
        self._next = 0.0  # when the next call is due
        self.paused_until = 0.0
        self._accepted = 0  # calls started and not refused
        self._refusals: deque[tuple[float, int]] = deque()  # (time, accepted by then), oldest first
        self._last_refusal = 0.0
        self._in_a_row = 0
        self._outage_began = 0.0
        self._grown_at = 0.0

    def delay(self, now: float) -> float:
        """Seconds until a call may start; 0 means now."""
        self._grow(now)
        return max(0.0, self._next - now, self.paused_until - now)

    def start(self, now: float) -> None:
        """A call starts."""
        if not self._refusals:
            self._refusals.append((now, 0))  # the beginning stands for the first exhaustion
        self._accepted += 1
        self._next = max(self._next, now - _BURST) + 1 / self.rate

    def succeed(self) -> None:
        """A call was answered with anything but a refusal."""
        self._in_a_row = 0

    def refuse(self, now: float, started: float, hint: float | None) -> None:
        """A call that started at `started` was refused for its rate; `hint` is the wait the server asks."""
        self._accepted -= 1
        if hint is not None:
            self.paused_until = max(self.paused_until, now + hint)
        if started < self._last_refusal:
            return  # one of a volley: the first of it has been acted on
        if self._in_a_row == 0:
            self._learn(now)
            self._outage_began = now
        cap = _SHORT_PAUSE if now - self._outage_began < _PATIENCE else _LONG_PAUSE
        if hint is None:
            self.paused_until = now + min(cap, _FIRST_PAUSE * 2**self._in_a_row)
        self._in_a_row += 1
        self._last_refusal = now

    def _learn(self, now: float) -> None:
        while len(self._refusals) > 1 and self._refusals[1][0] <= now - _KEPT:
            self._refusals.popleft()
        usable = [mark for mark in self._refusals if mark[0] <= now - _MIN_INTERVAL]
        if usable:
            since, accepted_then = usable[-1]
            accepted_rate = (self._accepted - accepted_then) / (now - since)
            self.rate = max(0.01, min(self._ceiling, self.rate, accepted_rate) * _BACK_OFF)
        self._refusals.append((now, self._accepted))
        self._grown_at = now

    def _grow(self, now: float) -> None:
        if self.rate < self._ceiling:
            speed = _CREEP if now - self._last_refusal < _RUN_AFTER else _RUN
            self.rate = min(self._ceiling, self.rate * (1 + speed * (now - self._grown_at)))
        self._grown_at = now


class Width:
    """How many calls may be in flight at once: doubled each round trip until the first sign of overload,
    then one more a round trip; halved, at most once a round trip, when the server says it is overloaded.

    It stops growing, without shrinking, while calls take `_LATENCY_LIMIT` times the best seen.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._exact = float(min(8, most))
        self._doubling = True
        self._last_cut = 0.0
        self._best = float("inf")
        self._recent = 0.0

    @property
    def limit(self) -> int:
        return int(self._exact)

    def succeed(self, seconds: float) -> None:
        """A call was answered well after `seconds`."""
        self._best = min(self._best, seconds)
        self._recent += (seconds - self._recent) / 8 if self._recent else seconds
        if self._recent <= _LATENCY_LIMIT * self._best:
            self._exact = min(self._most, self._exact + (1.0 if self._doubling else 1.0 / self._exact))

    def overload(self, now: float, started: float) -> None:
        """A call that started at `started` met an overloaded server (503, 529) or its deadline."""
        self._doubling = False
        if started >= self._last_cut:
            self._exact = max(1.0, self._exact / 2)
            self._last_cut = now


class TokenAllowance:
    """Tokens a minute the user allows: an estimate is taken before a call and corrected after it."""

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._left = float(per_minute)
        self._most = float(per_minute)
        self._at = 0.0

    def delay(self, now: float, estimate: int) -> float:
        """Seconds until `estimate` tokens are allowed; a call larger than a whole minute's waits for that."""
        if not self._rate:
            return 0.0
        self._left = min(self._most, self._left + (now - self._at) * self._rate) if self._at else self._left
        self._at = now
        return max(0.0, (min(estimate, self._most) - self._left) / self._rate)

    def take(self, tokens: int) -> None:
        """Tokens are used (or, negative, given back)."""
        self._left -= tokens
