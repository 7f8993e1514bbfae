"""Hard limits of a run: the highest possible cost of a call is reserved before it and settled after it.

The reservation covers the worst case (all of `max_tokens`), so a run never exceeds a limit. A call that does
not fit beside those in flight waits until they are settled.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from synth_core.settings import BudgetSettings


@dataclass
class Spending:
    """Money, tokens, calls and wall time. `usd` does not contain calls of unknown price."""

    usd: float = 0.0
    tokens: int = 0
    calls: int = 0
    wall_s: float = 0.0

    def add(self, other: Spending, sign: int = 1) -> None:
        self.usd += sign * other.usd
        self.tokens += sign * other.tokens
        self.calls += sign * other.calls


class Budget:
    """The budget of one run. Use it on the dispatcher's event loop only.

    before: what earlier sessions of the same run have spent.
    spent: names the limit that first had no room for a call. Empty while there is room.
    """

    def __init__(self, limits: BudgetSettings, before: Spending) -> None:
        self._limits = limits
        self._spent = before
        self._reserved = Spending()
        self._started = time.monotonic()
        self._settled = asyncio.Event()
        self.spent = ""

    async def reserve(self, worst: Spending) -> str:
        """Reserve one call, and wait for calls in flight if needed.

        Returns an empty string, or names the limit that has no room for the call.
        """
        while True:
            if reason := self.refuses(worst):
                return reason
            if not self._exceeded(worst, self._reserved):
                self._reserved.add(worst)
                return ""
            self._settled.clear()
            await self._settled.wait()

    def reserve_now(self, worst: Spending) -> str:
        """As `reserve`, but without waiting for calls in flight."""
        reason = self._exceeded(worst, self._reserved)
        if reason:
            self.spent = self.spent or reason
        else:
            self._reserved.add(worst)
        return reason

    def refuses(self, worst: Spending) -> str:
        """Why the call does not fit even if the calls in flight cost nothing; empty if it fits.

        The first reason is kept in `spent`.
        """
        reason = self._exceeded(worst, Spending())
        self.spent = self.spent or reason
        return reason

    def time_left(self) -> float:
        """Seconds of wall time that are left. Infinite without such a limit."""
        if not self._limits.wall_s:
            return float("inf")
        return max(0.0, self._limits.wall_s - self._wall_s())

    def settle(self, worst: Spending, real: Spending) -> None:
        """Replace a reservation by the real cost of the call."""
        self._reserved.add(worst, -1)
        self._spent.add(real)
        self._settled.set()

    def release(self, worst: Spending) -> None:
        """Cancel the reservation of a call that was not made."""
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
