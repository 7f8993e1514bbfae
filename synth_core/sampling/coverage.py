"""The sampler `coverage`: steers toward operators, pairs and triples that the output folder lacks.

It lets the coherent sampler propose several sets and takes the one that promises most: what is new in it,
times the chance that it is accepted, learned from the attempts so far. Operators count by the name under
which they enter fingerprints: what is asked for as MaxPool is realised as MaxPool2d, and both are one.
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
WORTH = {1: 3.0, 2: 1.0, 3: 0.3}  # of a new operator, pair, triple
_COUNTED_AS = {name: row.fingerprint for row in CATALOG for name in (row.name, *row.aliases)}


@dataclass
class Seen:
    """What is there already. held: how many accepted programs hold a set of one to three operators.

    worked: the operators of each accepted program, in forward order, by their own names.
    tried, accepted: attempts with an operator, and how many of them were accepted.
    """

    held: Counter[tuple[str, ...]] = field(default_factory=Counter)
    worked: list[tuple[str, ...]] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)

    def add(self, operators: Sequence[str], *, accepted: bool) -> None:
        """Count one attempt: what was asked for, or, where it was accepted, what was realised."""
        names = _counted(operators)
        self.tried.update(names)
        if accepted:
            self.accepted.update(names)
            self.held.update(_subsets(names))
            self.worked.append(tuple(operators))

    @classmethod
    def of(cls, attempts: Iterable[tuple[Sequence[str], bool]]) -> Seen:
        seen = cls()
        for operators, accepted in attempts:
            seen.add(operators, accepted=accepted)
        return seen


def draw(rng: random.Random, counts: Mapping[Group, int], seen: Seen) -> list[str]:
    """Names for one program; the same `rng` state, counts and `seen` give the same names."""
    proposals = [coherent.draw(rng, counts) for _ in range(PROPOSALS)]
    return max(proposals, key=lambda names: promise(names, seen))


def revisit(rng: random.Random, seen: Seen) -> list[str]:
    """The operators of an accepted program, to be asked for again in other shapes; empty where none is."""
    return list(rng.choice(seen.worked)) if seen.worked else []


def promise(names: Sequence[str], seen: Seen) -> float:
    """Worth of what is new in a set (n-th sight counts 1/n), for each operator drawn, times its chance."""
    subsets = list(_subsets(_counted(names)))
    new = sum(WORTH[len(subset)] / (1 + seen.held[subset]) for subset in subsets)
    return new / len(names) * _chance(names, seen)


def _chance(names: Sequence[str], seen: Seen) -> float:
    """Chance of acceptance, by the two weakest operators; two imagined successes each stand for ignorance."""
    rates = [(seen.accepted[name] + 2) / (seen.tried[name] + 2) for name in _counted(names)]
    return math.prod(sorted(rates)[:2])


def _counted(names: Iterable[str]) -> set[str]:
    """Canonical names; one that the catalog has dropped since, as an old ledger may hold, stays itself."""
    return {_COUNTED_AS.get(name, name) for name in names}


def _subsets(names: set[str]) -> Iterable[tuple[str, ...]]:
    ordered = sorted(names)
    return (subset for size in WORTH for subset in combinations(ordered, size))
