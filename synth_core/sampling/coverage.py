"""The sampler `coverage`: it prefers operators, pairs and triples that the output folder lacks.

The coherent sampler proposes several sets, and the one with the highest `promise` is taken: the value of what
is new in the set, times the estimated probability that it is accepted. Operators are counted by their name in
fingerprints: a request for MaxPool is realised as MaxPool2d, so both count as one.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from synth_core.operators.catalog import CATALOG
from synth_core.operators.operator import Group
from synth_core.sampling import coherent

PROPOSALS = 12
WORTH = {1: 3.0, 2: 1.0, 3: 0.3}  # value of a new operator, pair, triple
_COUNTED_AS = {name: row.fingerprint for row in CATALOG for name in (row.name, *row.aliases)}


@dataclass
class Seen:
    """What the folder already has.

    held: set of one to three operators -> number of accepted programs that contain it.
    worked: the operators of each accepted program, in forward order, by their own names.
    tried: operator -> number of attempts with it. accepted: how many of these were accepted.
    """

    held: Counter[tuple[str, ...]] = field(default_factory=Counter)
    worked: list[tuple[str, ...]] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)

    def add(self, operators: Sequence[str], *, accepted: bool) -> None:
        """Count one attempt. `operators`: the realised ones if it was accepted, else the requested ones."""
        names = _counted(operators)
        self.tried.update(names)
        if accepted:
            self.accepted.update(names)
            self.held.update(_subsets(names))
            self.worked.append(tuple(operators))

    @classmethod
    def of(cls, attempts: Iterable[tuple[Sequence[str], bool]]) -> Seen:
        """Count attempts, given as (operators, accepted)."""
        seen = cls()
        for operators, accepted in attempts:
            seen.add(operators, accepted=accepted)
        return seen


def draw(rng: random.Random, counts: Mapping[Group, int], seen: Seen) -> list[str]:
    """Draw the operators of one program. The same `rng` state, `counts` and `seen` give the same names."""
    proposals = [coherent.draw(rng, counts) for _ in range(PROPOSALS)]
    return max(proposals, key=lambda names: promise(names, seen))


def revisit(rng: random.Random, seen: Seen) -> list[str]:
    """The operators of an accepted program, to be requested again in other shapes. Empty if there is none."""
    return list(rng.choice(seen.worked)) if seen.worked else []


def promise(names: Sequence[str], seen: Seen) -> float:
    """Mean value of what is new in a set, per operator drawn, times its probability of acceptance.

    A subset that n programs already contain is worth 1 / (n + 1) of a new one.
    """
    subsets = list(_subsets(_counted(names)))
    new = sum(WORTH[len(subset)] / (1 + seen.held[subset]) for subset in subsets)
    return new / len(names) * _chance(names, seen)


def _chance(names: Sequence[str], seen: Seen) -> float:
    """Estimated probability of acceptance: the product of the two lowest success rates of its operators.

    Each rate starts with two assumed successes, so an operator that was never tried has the rate 1.
    """
    rates = [(seen.accepted[name] + 2) / (seen.tried[name] + 2) for name in _counted(names)]
    return math.prod(sorted(rates)[:2])


def _counted(names: Iterable[str]) -> set[str]:
    """The names in fingerprints. A name from an old ledger that the catalog no longer has stays as it is."""
    return {_COUNTED_AS.get(name, name) for name in names}


def _subsets(names: set[str]) -> Iterable[tuple[str, ...]]:
    ordered = sorted(names)
    return (subset for size in WORTH for subset in combinations(ordered, size))
