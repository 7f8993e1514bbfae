"""Plan the batches of a run: first attempts by strategy, then rounds of retries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flows.pipeline.batches import FinishedBatch
from flows.pipeline.plan import batch_size
from synth_core.records import Manifest
from synth_core.sampling import sample
from synth_core.settings import Settings
from synth_core.strategies import Strategy
from tasks.cache import Batch

_LOWEST_YIELD = 0.05  # what is assumed when nothing was accepted yet; keeps a round finite


@dataclass(frozen=True)
class Round:
    """One pass over a list of batches, with their number of candidates in total."""

    number: int
    batches: tuple[Batch, ...]
    candidates: int


def run_rounds(
    settings: Settings,
    strategies: Sequence[tuple[Strategy, str]],
    run_round: Callable[[Round], list[FinishedBatch]],
    is_spent: Callable[[], object] = lambda: False,
) -> None:
    """Plan and run one round after the other, each from the results of the one before.

    Without `num_accepted`, a run has `num_total_samples` first attempts and their retries. With it, the run
    ends when that many programs are accepted, or when no first attempt is left. It also ends once `is_spent`
    returns something true.

    run_round: runs a round and returns its batches in order, all of them unless the budget ends it.
    """
    size = batch_size(settings)
    first = accepted = attempted = 0
    planned: list[_PlannedBatch] = []
    for number in itertools.count():
        wanted = _count_first_attempts(
            settings, first, accepted, attempted, sum(each.candidates for each in planned)
        )
        planned += _first_attempts(strategies, first, wanted, size)
        if not planned:
            return
        batches = (
            each.batch.model_copy(update={"round": number, "batch": i}) for i, each in enumerate(planned)
        )
        this = Round(number, tuple(batches), sum(each.candidates for each in planned))
        finished = run_round(this)
        first, attempted = first + wanted, attempted + this.candidates
        accepted += sum(done.manifest.alive for done in finished)
        if is_spent() or (settings.num_accepted and accepted >= settings.num_accepted):
            return
        planned = list(_retries(settings, finished, [each.attempt for each in planned], size))


@dataclass(frozen=True)
class _PlannedBatch:
    """A batch that has no number in a round yet."""

    batch: Batch
    attempt: int
    candidates: int


def _first_attempts(
    strategies: Sequence[tuple[Strategy, str]], first: int, wanted: int, size: int
) -> Iterator[_PlannedBatch]:
    known = [strategy for strategy, _ in strategies]
    for strategy, indices in sample.divide(known, first, wanted):
        _, parameters = strategies[known.index(strategy)]  # equal ones have equal texts
        for start in range(indices.start, indices.stop, size):
            stop = min(start + size, indices.stop)
            batch = Batch(strategy=strategy.name, parameters=parameters, start=start, stop=stop)
            yield _PlannedBatch(batch, attempt=0, candidates=stop - start)


def _count_first_attempts(settings: Settings, first: int, accepted: int, attempted: int, pending: int) -> int:
    """Return how many first attempts the next round makes. `first` were made, `pending` are being retried."""
    left = settings.num_total_samples - first
    if not settings.num_accepted:
        return left
    if not attempted:
        return min(settings.num_accepted, left)
    share = max(accepted / attempted, _LOWEST_YIELD)
    missing = settings.num_accepted - accepted - pending * share
    return max(0, min(math.ceil(missing / share), left))


def _retries(
    settings: Settings, finished: Sequence[FinishedBatch], attempts: Sequence[int], size: int
) -> Iterator[_PlannedBatch]:
    """Join the failures of neighbouring batches of one strategy and attempt until they fill a batch."""
    if settings.on_failure == "drop":
        return
    again = [
        (done, attempt, sum(n for category, n in done.dropped.items() if category not in sample.FINAL))
        for done, attempt in zip(finished, attempts, strict=True)
        if attempt < settings.max_retries
    ]
    kinds = itertools.groupby(
        (entry for entry in again if entry[2]), key=lambda entry: (entry[0].batch.strategy, entry[1])
    )
    for (strategy, attempt), entries in kinds:
        sources, count = [], 0
        for done, _, failures in entries:
            sources.append(done.manifest)
            count += failures
            if count >= size:
                yield _retry(strategy, attempt, sources, count)
                sources, count = [], 0
        if sources:
            yield _retry(strategy, attempt, sources, count)


def _retry(strategy: str, attempt: int, sources: Sequence[Manifest], count: int) -> _PlannedBatch:
    return _PlannedBatch(Batch(strategy=strategy, sources=tuple(sources)), attempt + 1, count)
