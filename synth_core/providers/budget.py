"""Hard limits of a run: what a call may cost at most is reserved before it and settled after it.

Because the worst case is reserved (all of max_tokens), a limit is kept, not merely noticed; a call that does
not fit beside those in flight waits for them to settle.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from synth_core.settings import BudgetSettings


@dataclass
class Spending:
    """Money, tokens and calls; `usd` leaves unpriced calls out."""

    usd: float = 0.0
    tokens: int = 0
    calls: int = 0
    wall_s: float = 0.0

    def add(self, other: Spending, sign: int = 1) -> None:
        self.usd += sign * other.usd
        self.tokens += sign * other.tokens
        self.calls += sign * other.calls


class Budget:
    """Lives on dispatch's event loop; `before` is what earlier sessions of the same run have spent.

    spent: which limit first left no room for a call; empty while there is room.
    """

    def __init__(self, limits: BudgetSettings, before: Spending) -> None:
        self._limits = limits
        self._spent = before
        self._reserved = Spending()
        self._started = time.monotonic()
        self._settled = asyncio.Event()
        self.spent = ""

    async def reserve(self, worst: Spending) -> str:
        """Reserve one call; the answer is empty, or says which limit leaves no room for it."""
        while True:
            if reason := self.refuses(worst):
                return reason
            if not self._exceeded(worst, self._reserved):
                self._reserved.add(worst)
                return ""
            self._settled.clear()
            await self._settled.wait()

    def reserve_now(self, worst: Spending) -> str:
        """Reserve one call without waiting for others; the answer is as `reserve`'s."""
        reason = self._exceeded(worst, self._reserved)
        if reason:
            self.spent = self.spent or reason
        else:
            self._reserved.add(worst)
        return reason

    def refuses(self, worst: Spending) -> str:
        """Which limit leaves no room for a call even after those in flight, if one does."""
        reason = self._exceeded(worst, Spending())
        self.spent = self.spent or reason
        return reason

    def time_left(self) -> float:
        """Seconds of wall time; infinite where no limit is set."""
        if not self._limits.wall_s:
            return float("inf")
        return max(0.0, self._limits.wall_s - self._wall_s())

    def settle(self, worst: Spending, real: Spending) -> None:
        """Replace a reservation by what the call really took."""
        self._reserved.add(worst, -1)
        self._spent.add(real)
        self._settled.set()

    def release(self, worst: Spending) -> None:
        """Take a reservation back whose call was never made."""
        self.settle(worst, Spending())

    def _exceeded(self, worst: Spending, beside: Spending) -> str:
        spent, limits = self._spent, self._limits
        if limits.usd and spent.usd + beside.usd + worst.usd > limits.usd:
            return (
                f"the budget of {limits.usd:g} USD leaves no room for a call: {spent.usd:.4f} USD are spent"
                f" and one may cost {worst.usd:.4f}"
            )
        if limits.tokens and spent.tokens + beside.tokens + worst.tokens > limits.tokens:
            return (
                f"the budget of {limits.tokens} tokens leaves no room for a call: {spent.tokens} are spent"
                f" and one may take {worst.tokens}"
            )
        if limits.calls and spent.calls + beside.calls + worst.calls > limits.calls:
            return f"the budget of {limits.calls} calls is spent"
        if not self.time_left():
            return f"the budget of {limits.wall_s:g} s of wall time is spent"
        return ""

    def _wall_s(self) -> float:
        return self._spent.wall_s + time.monotonic() - self._started
