"""Asking again at the end of a batch what a passing trouble of the server outlasted.

An outage is not the candidates' fault, so it must not cost them one of their attempts: it is waited out, and
one that lasts ends the run, to be resumed. Questions that this server fails on each time look alike but are
few; they end no run, which would meet them again whenever it is resumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from synth_core.errors import HopelessProvider
from synth_core.providers.call import RETRYABLE
from synth_core.records import Candidate

_MANY = 3  # candidates of one batch that fail may mean an outage …
_MOST = 0.5  # … and this share of the batch, when nobody else is answered for minutes, does
_PROBES, _LONGEST_PAUSE = 8, 12  # questions that find the server down; the longest pause, in first pauses

Ask = Callable[[Sequence[Candidate]], Awaitable[list[Candidate]]]


async def salvage(
    candidates: Sequence[Candidate],
    done: Sequence[Candidate],
    ask: Ask,
    answered: Callable[[], int],
    pause: float,
    time_left: Callable[[], float],
) -> list[Candidate]:
    """What came of the candidates (`done`, in their order); who failed for the moment is asked again.

    ask: asks some once. answered: counts the good answers of the whole run; none since the last pause means
    that the server is down. pause: seconds before the first try; doubled while the server is down.
    time_left: seconds until no call is made any more.
    Raises `HopelessProvider` where it stays down for about five minutes and most candidates wait for it.
    """
    done = list(done)

    async def again(chosen: list[int]) -> None:
        asked = [candidates[i].model_copy(update={"telemetry": done[i].telemetry}) for i in chosen]
        for index, candidate in zip(chosen, await ask(asked), strict=True):
            done[index] = candidate

    longest, probes = pause * _LONGEST_PAUSE, 0
    while outlasted := _outlasted(candidates, done):
        before = answered()
        await asyncio.sleep(min(pause, time_left()))
        down = len(outlasted) >= _MANY and answered() == before
        if down:
            # A different one each time, so that none that always fails stands for the server.
            probe = outlasted[probes % len(outlasted)]
            await again([probe])
            down = answered() == before and probe in _outlasted(candidates, done)
        if not down:  # or the budget is spent
            await again(_outlasted(candidates, done))
            break
        probes += 1
        if probes == _PROBES:
            if len(outlasted) >= _MOST * sum(candidate.alive for candidate in candidates):
                raise HopelessProvider(_explain(len(outlasted), probes, done[probe]))
            break
        pause = min(pause * 2, longest)
    return done


def _outlasted(candidates: Sequence[Candidate], done: Sequence[Candidate]) -> list[int]:
    return [
        index
        for index, candidate in enumerate(done)
        if candidates[index].alive and candidate.completion and candidate.completion.outcome in RETRYABLE
    ]


def _explain(waiting: int, probes: int, last: Candidate) -> str:
    said = last.completion.error if last.completion else ""
    return (
        f"the provider answers no more: {waiting} candidates of a batch wait for it, and {probes} further"
        f" calls within minutes failed, the last by: {said}. Run `synth resume` when it answers again"
    )
