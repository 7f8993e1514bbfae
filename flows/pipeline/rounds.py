"""Which batches a run is made of: first attempts by strategy, then rounds of further attempts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flows.pipeline.batches import Finished
from flows.pipeline.plan import batch_size
from synth_core.records import Manifest
from synth_core.sampling import sample
from synth_core.settings import Settings
from synth_core.strategies import Strategy
from tasks.cache import Batch

_LOWEST_YIELD = 0.05  # what is assumed when nothing was accepted yet; keeps a round finite


@dataclass(frozen=True)
class Round:
    """One pass: its batches, and how many candidates they hold together."""

    number: int
    batches: tuple[Batch, ...]
    candidates: int


def go_through_rounds(
    settings: Settings,
    strategies: Sequence[tuple[Strategy, str]],
    carry: Callable[[Round], list[Finished]],
    spent: Callable[[], object] = lambda: False,
) -> None:
    """Plan each round from what became of the one before; `carry` runs it and gives its batches in order
    (all of them, unless the budget ends it).

    Without `num_accepted` a run is `num_total_samples` first attempts and the further attempts that follow
    from them. With it, rounds go on until that many are accepted or the first attempts are used up. No round
    follows once `spent` says that the budget is.
    """
    size = batch_size(settings)
    first = accepted = attempted = 0
    lots: list[_Lot] = []
    for number in itertools.count():
        wanted = _how_many_first(settings, first, accepted, attempted, sum(lot.candidates for lot in lots))
        lots += _first_attempts(strategies, first, wanted, size)
        if not lots:
            return
        batches = (lot.batch.model_copy(update={"round": number, "batch": i}) for i, lot in enumerate(lots))
        this = Round(number, tuple(batches), sum(lot.candidates for lot in lots))
        finished = carry(this)
        first, attempted = first + wanted, attempted + this.candidates
        accepted += sum(done.manifest.alive for done in finished)
        if spent() or (settings.num_accepted and accepted >= settings.num_accepted):
            return
        lots = list(_further_attempts(settings, finished, [lot.attempt for lot in lots], size))


@dataclass(frozen=True)
class _Lot:
    """A batch before it has its place in a round."""

    batch: Batch
    attempt: int
    candidates: int


def _first_attempts(
    strategies: Sequence[tuple[Strategy, str]], first: int, wanted: int, size: int
) -> Iterator[_Lot]:
    known = [strategy for strategy, _ in strategies]
    for strategy, indices in sample.divide(known, first, wanted):
        _, parameters = strategies[known.index(strategy)]  # equal ones have equal texts
        for start in range(indices.start, indices.stop, size):
            stop = min(start + size, indices.stop)
            batch = Batch(strategy=strategy.name, parameters=parameters, start=start, stop=stop)
            yield _Lot(batch, attempt=0, candidates=stop - start)


def _how_many_first(settings: Settings, first: int, accepted: int, attempted: int, pending: int) -> int:
    """How many first attempts the next round makes, `first` having been made and `pending` being retried."""
    left = settings.num_total_samples - first
    if not settings.num_accepted:
        return left
    if not attempted:
        return min(settings.num_accepted, left)
    share = max(accepted / attempted, _LOWEST_YIELD)
    missing = settings.num_accepted - accepted - pending * share
    return max(0, min(math.ceil(missing / share), left))


def _further_attempts(
    settings: Settings, finished: Sequence[Finished], attempts: Sequence[int], size: int
) -> Iterator[_Lot]:
    """Neighbouring batches of one strategy and attempt, joined until their failures fill a batch."""
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
                yield _again(strategy, attempt, sources, count)
                sources, count = [], 0
        if sources:
            yield _again(strategy, attempt, sources, count)


def _again(strategy: str, attempt: int, sources: Sequence[Manifest], count: int) -> _Lot:
    return _Lot(Batch(strategy=strategy, sources=tuple(sources)), attempt + 1, count)
