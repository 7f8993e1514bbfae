"""Turns settings and a seed into specifications: which operators each candidate should contain.

Every candidate has its own random stream. Its seed is derived from the run's seed and the candidate's index
alone. So the batch size, the order of work and the number of candidates do not change a candidate.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence

from synth_core.operators.catalog import in_group
from synth_core.operators.operator import Group
from synth_core.records import Candidate, Category, Specification, sha256
from synth_core.sampling import coherent, coverage
from synth_core.sampling.coverage import Seen
from synth_core.sampling.repair import with_feedback
from synth_core.settings import Settings
from synth_core.strategies import Strategy

# A further attempt with the same operators would give the same duplicate or the same benchmark problem.
FINAL = frozenset({Category.DUPLICATE, Category.CONTAMINATED})


def plan(strategies: Sequence[Strategy], first: int, count: int) -> list[tuple[Strategy, range]]:
    """Divide the indices first … first+count-1 among the strategies by their shares (largest remainder)."""
    total = sum(strategy.share for strategy in strategies)
    exact = [count * strategy.share / total for strategy in strategies]
    sizes = [math.floor(size) for size in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: sizes[i] - exact[i])
    for i in by_remainder[: count - sum(sizes)]:
        sizes[i] += 1
    chunks = []
    for strategy, size in zip(strategies, sizes, strict=True):
        if size:
            chunks.append((strategy, range(first, first + size)))
        first += size
    return chunks


def sample(
    settings: Settings, strategy: Strategy, indices: Iterable[int], seen: Seen | None = None
) -> list[Candidate]:
    """Make first attempts for the given positions of the run. `settings.seed` must be resolved.

    seen: what the output folder already has. Only the sampler `coverage`, and strategies that revisit
        operators, use it.
    """
    return [_first_attempt(settings, strategy, index, seen or Seen()) for index in indices]


def again(candidate: Candidate, settings: Settings) -> Candidate | None:
    """A further attempt at the same operators after a failure.

    None if the candidate did not fail, if its failure is final, or if the settings allow no more attempts.
    """
    failure = candidate.failure
    if failure is None or failure.category in FINAL:
        return None
    if settings.on_failure == "drop" or candidate.attempt >= settings.max_retries:
        return None
    attempt = candidate.attempt + 1
    seed = _derive_seed(settings, candidate.index, attempt)
    specification = candidate.specification.model_copy(update={"seed": seed, "sample": _another(seed)})
    fresh = Candidate(
        index=candidate.index, attempt=attempt, parent_id=candidate.id, specification=specification
    )
    return with_feedback(fresh, candidate) if settings.on_failure == "repair" else fresh


def draw_count(rng: random.Random, low: int, high: int, p_value: float) -> int:
    """Draw the number of operators of one group, from `low` to `high`.

    Starting at `low`, the count stops with probability `p_value` at each step (the rule of the seed system).
    So count - low has a geometric distribution, truncated at `high`.
    """
    count = low
    while count < high and rng.random() >= p_value:
        count += 1
    return count


def _first_attempt(settings: Settings, strategy: Strategy, index: int, seen: Seen) -> Candidate:
    seed = _derive_seed(settings, index, attempt=0)
    rng = random.Random(seed)
    ranges = {
        Group.CORE: strategy.num_core_ops_range,
        Group.COMPOUND: strategy.num_compound_ops_range,
        Group.SUPPORTING: strategy.num_supporting_ops_range,
    }
    counts: dict[Group, int] = {}
    while not any(counts.values()):  # if all ranges start at 0, a draw may be empty
        counts = {
            group: draw_count(rng, low, high, strategy.p_value) for group, (low, high) in ranges.items()
        }
    chosen = strategy.revisit and rng.random() < strategy.revisit
    held = coverage.revisit(rng, seen) if chosen else []
    specification = Specification(
        operators=tuple(held or _draw(rng, counts, strategy, seen)),
        strategy=strategy.name,
        seed=seed,
        revisit=bool(held),
        sample=_another(seed) if held else 0,
        provider=settings.model_name,
        prompt=strategy.prompt,
        temperature=strategy.temperature,
    )
    return Candidate(index=index, specification=specification)


def _draw(rng: random.Random, counts: dict[Group, int], strategy: Strategy, seen: Seen) -> list[str]:
    """Draw operators with the strategy's sampler. With an explicit list of operators, always uniformly."""
    if strategy.operators or strategy.sampler == "uniform":
        return draw_uniform(rng, counts, strategy.operators)
    if strategy.sampler == "coherent":
        return coherent.draw(rng, counts)
    return coverage.draw(rng, counts, seen)


def draw_uniform(rng: random.Random, counts: dict[Group, int], only: Collection[str] = ()) -> list[str]:
    """Draw names uniformly from each group, with replacement.

    only: the names that may be drawn. Empty: all. A group without any of these names draws nothing.
    """
    names: list[str] = []
    for group, count in counts.items():
        rows = [row.name for row in in_group(group) if not only or row.name in only]
        names += (rows[int(rng.random() * len(rows))] for _ in range(count if rows else 0))
    return names


def _another(seed: int) -> int:
    """The `sample` number for a question that must not get the cached answer: the seed, but never 0."""
    return seed or 1


def _derive_seed(settings: Settings, index: int, attempt: int) -> int:
    return int(sha256(f"{settings.seed}:{index}:{attempt}")[:8], 16)
