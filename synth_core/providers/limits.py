"""How fast and how wide one (provider, model) is called: two limits, each learned by AIMD.

AIMD is additive increase, multiplicative decrease: raise a limit slowly, cut it at a sign of trouble.
A 429 says that calls come too often, so it cuts the *pace*. Fewer calls in flight would not help: they would
leave most of the allowance unused. A 503 or a timeout says that the server has too much work at once, so it
cuts the *width*.

The classes do arithmetic on times that the caller passes in. They use no clock and no event loop, so tests
simulate hours in milliseconds. Times are seconds on one monotonic clock. Rates are calls per second.
"""

from __future__ import annotations

_LEAST_CUT, _MOST_CUT = 0.9, 0.8  # the pace after a refusal, as a share of the pace before it
_FIRST_GROWTH, _LEAST_GROWTH = 0.25, 0.005  # growth per second, as a share of the pace after the last cut
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0  # seconds; pauses without a Retry-After double from the first
_ALONE = 0.25  # seconds that the first call after a refusal goes ahead of the others
_BURST = 0.2  # seconds of missed calls that may be made up for at once


class Pace:
    """When the next call may start.

    A refusal pauses all calls for as long as its Retry-After says. Without a Retry-After the pause doubles
    with each refusal. After the pause one call goes alone. If that call is refused, the pause repeats and
    the pace stays. Any other refusal, the first one included, also cuts the pace, to about what the server
    accepted since the last cut. After a cut the pace grows slowly again.
    """

    def __init__(self, allowed: float = 0.0) -> None:
        """allowed: the most calls per second that the user allows; 0 means no limit."""
        self._ceiling = allowed or float("inf")
        self.rate = self._ceiling
        self.paused_until = 0.0
        self._next = 0.0  # when the next call is due
        self._growth_share = _FIRST_GROWTH
        self._growth = 0.0  # calls per second, per second
        self._grown_at = 0.0
        self._accepted = 0  # calls since the last cut that were started and not refused
        self._counted_from: float | None = None  # the last cut, or the first call
        self._last_refusal = float("-inf")
        self._ahead: float | None = None  # when the first call after the last refusal started
        self._pauses = 0  # since the last cut

    def delay(self, now: float) -> float:
        """Return the seconds until a call may start; 0 means now."""
        self.rate = min(self._ceiling, self.rate + self._growth * (now - self._grown_at))
        self._grown_at = now
        return max(0.0, self._next - now, self.paused_until - now)

    def start(self, now: float, gap: float = 0.0) -> None:
        """Note that a call starts. The next one starts at least `gap` seconds later."""
        if self._counted_from is None:
            self._counted_from = now
        self._accepted += 1
        gap = max(gap, 1 / self.rate)
        if self._ahead is None and self._last_refusal > float("-inf"):
            self._ahead = now
            self._next = now + max(gap, _ALONE)
        else:
            self._next = max(self._next, now - _BURST) + gap

    def pause(self, until: float) -> None:
        """Start no call before `until`."""
        self.paused_until = max(self.paused_until, until)

    def refuse(self, now: float, started: float, hint: float | None) -> None:
        """Note a refusal (429) of the call that started then. `hint` is its Retry-After in seconds."""
        self._accepted -= 1
        if hint is not None:
            self.pause(now + hint)
        if started <= self._last_refusal:  # it was in flight when an earlier refusal came
            return
        self._last_refusal = now
        ahead, self._ahead = self._ahead, None
        if ahead is None or started > ahead:
            self._cut(now)
        if hint is None:
            self.pause(now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._pauses))
        self._pauses += 1

    def _cut(self, now: float) -> None:
        assert self._counted_from is not None
        seen = self._accepted / max(1.0, now - self._counted_from)
        if self.rate == float("inf"):
            self.rate = max(1.0, seen)
        else:
            self.rate = min(max(seen, _MOST_CUT * self.rate), _LEAST_CUT * self.rate)
        self._growth = self._growth_share * self.rate
        self._growth_share = max(_LEAST_GROWTH, self._growth_share / 2)
        self._grown_at = self._counted_from = now
        self._accepted = self._pauses = 0


class Width:
    """How many calls may be in flight at once.

    It doubles every round trip until the server first reports overload. From then on it grows by one call per
    round trip. Each overload halves it, at most once per round trip.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._exact = float(min(8, most))
        self._doubling = True
        self._last_cut = 0.0
        self._latency = 0.0  # moving average in seconds: it falls quickly, so a slow start is soon forgotten

    @property
    def limit(self) -> int:
        return int(self._exact)

    def succeed(self, seconds: float) -> None:
        """Note a good answer that took `seconds`."""
        self._exact = min(self._most, self._exact + (1.0 if self._doubling else 1.0 / self._exact))
        if self._latency:
            self._latency += (seconds - self._latency) / (4 if seconds < self._latency else 32)
        else:
            self._latency = seconds

    @property
    def gap(self) -> float:
        """Seconds between calls that still keep the full width busy.

        Calls that are spread like this meet a rate limit one by one. Calls that start together are refused
        together.
        """
        return 0.8 * self._latency / self._exact

    def overload(self, now: float, started: float) -> None:
        """Note that a call that started then met an overloaded server (503, 529) or timed out."""
        self._doubling = False
        if started >= self._last_cut:
            self._exact = max(1.0, self._exact / 2)
            self._last_cut = now


class TokenAllowance:
    """The tokens per minute that the user allows: a token bucket that holds one second's worth.

    A larger bucket would let a minute exceed the limit by what the bucket held. A call that needs more than a
    full bucket waits until it is full and overdraws it; the next call waits until that is paid back. Each
    call takes an estimate first, which is corrected once the answer says what it used.
    """

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._left = self._most = self._rate
        self._at = 0.0

    def delay(self, now: float, estimate: int) -> float:
        """Return the seconds until a call of `estimate` tokens may start."""
        if not self._rate:
            return 0.0
        self._left = min(self._most, self._left + (now - self._at) * self._rate) if self._at else self._left
        self._at = now
        return max(0.0, (min(estimate, self._most) - self._left) / self._rate)

    def take(self, tokens: int) -> None:
        """Take tokens out of the bucket; a negative number puts them back."""
        self._left -= tokens
