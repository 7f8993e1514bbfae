"""Repeats one call after an error that may pass, and waits as long as the server asks.

Which errors may pass: `RETRYABLE` in call.py. Outages: salvage.py. Rows of a batch job: batch.py. New
attempts at a failed program: flows/pipeline/rounds.py.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from synth_core.providers.call import RETRYABLE, Reply, Request
from synth_core.providers.lane import Keep, Lane
from synth_core.records import Outcome, Usage

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between tries, doubled each time


@dataclass(frozen=True)
class Asked:
    """The last reply, and the sums over all tries.

    seconds: the duration of the calls, without the pauses between them.
    """

    reply: Reply
    usage: Usage
    calls: int
    seconds: float


async def ask(lane: Lane, request: Request, candidate: str, retries: int, keep: Keep) -> Asked:
    """Ask one question, with at most `retries` repeats.

    The usage contains the calls that were made, not a call that a budget refused.
    Raises `HopelessProvider` once the lane's breaker has tripped.
    """
    usage, calls, seconds = Usage(cost_usd=0.0), 0, 0.0
    while True:
        reply = await lane.ask(request, candidate, keep)
        seconds += reply.seconds
        if reply.outcome is Outcome.OVER_BUDGET:
            return Asked(reply, usage, calls, seconds)
        usage = add_usage(usage, reply.usage)
        calls += 0 if lane.provider.writes_here else 1
        if reply.outcome not in RETRYABLE or calls > retries or lane.provider.writes_here:
            return Asked(reply, usage, calls, seconds)
        if reply.outcome is not Outcome.RATE_LIMITED:  # after a rate limit, the lane itself pauses
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (calls - 1)) * random.uniform(0.5, 1.0)
            await asyncio.sleep(max(pause, reply.retry_after or 0.0))


def add_usage(one: Usage, other: Usage) -> Usage:
    """The sum of both. Its cost is None if either cost is None."""
    unpriced = one.cost_usd is None or other.cost_usd is None
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        thinking_tokens=one.thinking_tokens + other.thinking_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        cost_usd=None if unpriced else (one.cost_usd or 0.0) + (other.cost_usd or 0.0),
    )
