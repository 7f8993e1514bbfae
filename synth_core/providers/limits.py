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
from dataclasses import dataclass

_TELLING = 3.0  # shortest time since a refusal that tells a rate
_REMEMBERED = 75.0  # how far back refusals are remembered: a little over the minute that providers count in
_FIRST_PAUSE = 0.1  # without a hint: pause after the first refusal, doubled while refusals go on …
_SHORT_PAUSE, _LONG_PAUSE, _PATIENCE = (
    10.0,
    30.0,
    75.0,
)  # … up to the short cap, after `_PATIENCE` to the long
_BACK_OFF, _STEP_DOWN = 0.98, 0.85  # pace after a refusal, as a share of what is granted, or of what it was
_STEADY = 0.95  # least pace after refusals close together, as a share of what was seen to be granted
_FIRST_RATE = 4.0  # least pace after the very first refusal
_SPEED, _LEAST_SPEED = 0.25, 0.001  # growth of the pace a second: at first, and at least
_OFTEN, _SELDOM = 5.0, 20.0  # refusals closer than this halve the growth, further apart double it
_BURST = 0.2  # seconds of calls that may be caught up at once

_LATENCY_LIMIT = 3.0  # no wider while calls take this many times the base latency
_BLOCK, _BLOCKS = 16, 512  # answers whose latencies are looked at together, and how many such are remembered


@dataclass
class _Mark:
    """A moment of exhaustion: when, how many calls were accepted by then, the pace from there."""

    at: float
    accepted: int
    rate: float


class Pace:
    """When the next call may start.

    The allowed rate is read off between refusals: what a server accepted from one moment of exhaustion to
    the next is what it grants, whether it counts by token bucket, fixed or sliding window. From there the
    pace grows, the slower the more often that led to a refusal. A server's hint (Retry-After) pauses every
    call; without one the pauses double.
    """

    def __init__(self, allowed: float = 0.0) -> None:
        """allowed: calls a second that the user allows at most; 0: no limit of our own."""
        self._ceiling = allowed or float("inf")
        self.rate = self._ceiling
        self.paused_until = 0.0
        self._next = 0.0  # when the next call is due
        self._speed = _SPEED
        self._grown_at = 0.0
        self._accepted = 0  # calls started and not refused
        self._marks: deque[_Mark] = deque()  # moments at which the server was exhausted
        self._last_refusal = float("-inf")
        self._granted = 0.0  # calls a second that the server was last seen to grant, window by window
        self._shut = float("-inf")  # when it last refused everything for seconds
        self._outage_began = 0.0
        self._pauses = 0  # since a call was last accepted
        self._probing: float | None = None  # start of the first call since a refusal
        self._refusal_takes = 0.1  # seconds from a call to its refusal …
        self._refusal_varies = 0.03  # … and how far from that it usually is

    def delay(self, now: float) -> float:
        """Seconds until a call may start; 0 means now."""
        self._grow(now)
        return max(0.0, self._next - now, self.paused_until - now)

    def start(self, now: float, gap: float = 0.0) -> None:
        """A call starts; the next comes at least `gap` seconds later, whatever the rate."""
        if not self._marks:
            self._marks.append(_Mark(now, 0, self.rate))  # the beginning stands for the first
        gap = max(gap, 1 / self.rate)
        if self._probing is None:
            # The first after a refusal goes ahead alone, for as long as another refusal would take to come.
            self._probing = now
            self._next = now + max(gap, self._refusal_within)
        else:
            self._next = max(self._next, now - _BURST) + gap
        self._accepted += 1

    def pause(self, until: float) -> None:
        """No call starts before then, whatever else is said."""
        self.paused_until = max(self.paused_until, until)

    def refuse(self, now: float, started: float, hint: float | None) -> None:
        """The call that started then was refused for its rate; `hint` is the wait the server asks for."""
        self._accepted -= 1
        off = now - started - self._refusal_takes
        self._refusal_takes += off / 4
        self._refusal_varies += (abs(off) - self._refusal_varies) / 4
        if hint is not None:
            self.pause(now + hint)
        if started <= self._last_refusal:  # one of a volley, whose first has been acted on
            if started <= self._marks[-1].at:
                self._marks[-1].accepted -= 1
            return
        self._last_refusal = now
        # Answers take long, so the one that went ahead counts as accepted once its refusal is overdue.
        ahead, self._probing = self._probing, None
        if ahead is not None and started > ahead and now - ahead > self._refusal_within:
            self._learn(now)
            self._outage_began = now
            self._pauses = 0
        if hint is None:
            cap = _SHORT_PAUSE if now - self._outage_began < _PATIENCE else _LONG_PAUSE
            self.paused_until = now + min(cap, _FIRST_PAUSE * 2**self._pauses)
        self._pauses += 1
        if self.paused_until > now + _TELLING:
            self._shut = now

    @property
    def _refusal_within(self) -> float:
        """Seconds by which a refusal has come, if it comes."""
        return self._refusal_takes + 4 * self._refusal_varies

    def _learn(self, now: float) -> None:
        """Lower the pace at a refusal that ends a time of accepted calls."""
        marks = self._marks
        while len(marks) > 1 and marks[0].at < now - _REMEMBERED:
            marks.popleft()
        apart = now - marks[-1].at
        if self.rate == float("inf"):
            self.rate = max(_FIRST_RATE, self._accepted / max(1.0, now - marks[0].at))
        elif apart < _TELLING:
            # Not far below what a longer look has shown: then it is the moment that is full, not the minute.
            self.rate = max(self.rate * _STEP_DOWN, min(self.rate, _STEADY * self._granted))
        else:
            # A window that was exhausted early shows in a short look back as a grant of next to nothing.
            telling = [mark for mark in marks if mark.at <= now - _TELLING]
            granted, then = max(
                ((self._accepted - mark.accepted) / (now - mark.at), mark.rate) for mark in telling
            )
            if then > 1.2 * granted:  # asked too often all the time: then that is all the server grants
                self.rate = granted * _BACK_OFF
                # Only a window shuts for seconds; what a bucket granted may have been its first filling.
                self._granted = granted if now - self._shut < _REMEMBERED else 0.0
                self._speed = _LEAST_SPEED
            else:  # the limit lies between what was granted and what was asked
                self.rate = min(self.rate, (self.rate * granted) ** 0.5) * _BACK_OFF
        self.rate = max(self.rate, 0.01)
        change = 0.5 if apart < _OFTEN else 2.0 if apart > _SELDOM else 1.0
        self._speed = min(_SPEED, max(_LEAST_SPEED, self._speed * change))
        self._grown_at = now
        marks.append(_Mark(now, self._accepted, self.rate))

    def _grow(self, now: float) -> None:
        passed = now - self._grown_at
        self._grown_at = now
        if self.rate < self._ceiling:
            if now - self._last_refusal > (_REMEMBERED if self._granted else _SELDOM):
                self._speed = min(_SPEED, self._speed * 2 ** (passed / 10))
            self.rate = min(self._ceiling, self.rate * (1 + self._speed * passed))


class Width:
    """How many calls may be in flight at once: doubled each round trip until the first sign of overload,
    then one more a round trip; halved, at most once a round trip, when the server says it is overloaded.

    It stops growing, without shrinking, while calls take `_LATENCY_LIMIT` times the base latency, and doubles
    no more once half a block of answers in a row said so. Latencies of one server differ by more than that,
    by what is asked and by luck. So not single calls are compared but lower quartiles of `_BLOCK` answers: of
    the last, and of the best block remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._exact = float(min(8, most))
        self._doubling = True
        self._last_cut = 0.0
        self._block: deque[float] = deque(maxlen=_BLOCK)  # the last latencies
        self._quartiles: deque[float] = deque(maxlen=_BLOCKS)  # of whole blocks
        self._in_block = 0
        self._slow = 0  # answers in a row that were over the latency limit
        self._base = 0.0

    @property
    def limit(self) -> int:
        return int(self._exact)

    def succeed(self, seconds: float) -> None:
        """A call was answered well after `seconds`."""
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
        """Seconds between calls that keep a full width busy: starts are spread, so that a limit is met by one
        call and not by a volley."""
        return 0.8 * self._base / self._exact

    def overload(self, now: float, started: float) -> None:
        """A call that started at `started` met an overloaded server (503, 529) or its deadline."""
        self._doubling = False
        if started >= self._last_cut:
            self._exact = max(1.0, self._exact / 2)
            self._last_cut = now


class TokenAllowance:
    """Tokens a minute the user allows: an estimate is taken before a call and corrected after it.

    No more than a second's worth is saved up, since any minute may hold what was saved beside what is
    allowed in it. A call larger than that waits for a full second's and runs into debt, which the next waits
    out.
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
        """Tokens are used (or, negative, given back)."""
        self._left -= tokens
