"""At the end of a batch, asks again the questions that failed because of a temporary problem of the server.

An outage is not the candidates' fault, so it must not use up their attempts. A short outage is waited out. A
long one ends the run, which can be resumed later. Some questions fail at this server every time. They look
like an outage, but they are few. They must not end the run, because they would fail again after each resume.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from synth_core.errors import HopelessProvider
from synth_core.providers.call import RETRYABLE
from synth_core.records import Candidate

_MANY = 3  # this many failed candidates of one batch may mean an outage
_MOST = 0.5  # this share of the batch, if nothing else is answered for minutes, does mean one
_PROBES = 8  # questions that fail in a row before the server counts as down
_LONGEST_PAUSE = 12  # the longest pause, as a multiple of the first

Ask = Callable[[Sequence[Candidate]], Awaitable[list[Candidate]]]


async def salvage(
    candidates: Sequence[Candidate],
    done: Sequence[Candidate],
    ask: Ask,
    answered: Callable[[], int],
    pause: float,
    time_left: Callable[[], float],
) -> list[Candidate]:
    """Ask again the candidates with a temporary failure. Returns all results, in the candidates' order.

    done: the results so far, in the same order.
    ask: asks some candidates once.
    answered: the number of good answers in the whole run. If it does not grow, the server is down.
    pause: seconds before the first try; doubled while the server is down.
    time_left: seconds until the run may make no more calls.
    Raises `HopelessProvider` if the server is down for about five minutes and most candidates wait for it.
    """
    done = list(done)

    async def again(chosen: list[int]) -> None:
        asked = [candidates[i].model_copy(update={"telemetry": done[i].telemetry}) for i in chosen]
        for index, candidate in zip(chosen, await ask(asked), strict=True):
            done[index] = candidate

    longest, probes = pause * _LONGEST_PAUSE, 0
    while waiting := _failed_temporarily(candidates, done):
        before = answered()
        await asyncio.sleep(min(pause, time_left()))
        down = len(waiting) >= _MANY and answered() == before
        if down:
            # Another candidate each time: one that always fails says nothing about the server.
            probe = waiting[probes % len(waiting)]
            await again([probe])
            down = answered() == before and probe in _failed_temporarily(candidates, done)
        if not down:  # or the budget is spent
            await again(_failed_temporarily(candidates, done))
            break
        probes += 1
        if probes == _PROBES:
            if len(waiting) >= _MOST * sum(candidate.alive for candidate in candidates):
                raise HopelessProvider(_explain(len(waiting), probes, done[probe]))
            break
        pause = min(pause * 2, longest)
    return done


def _failed_temporarily(candidates: Sequence[Candidate], done: Sequence[Candidate]) -> list[int]:
    """Positions of the candidates whose last call had a retryable outcome."""
    return [
        index
        for index, candidate in enumerate(done)
        if candidates[index].alive and candidate.completion and candidate.completion.outcome in RETRYABLE
    ]


def _explain(waiting: int, probes: int, last: Candidate) -> str:
    said = last.completion.error if last.completion else ""
    return (
        f"the provider no longer answers: {waiting} candidates of a batch wait for it, and {probes} more"
        f" calls within minutes failed. Last error: {said}. Run `synth resume` when it answers again"
    )
