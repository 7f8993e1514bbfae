"""Orders the operators: into tracks with one kind of value each, and within each track.

The requested operators may come in any order, so they get the usual order: volumes before images before
sequences before vectors; padding before a convolution, then norm, activation, pooling. This order needs
little glue code between two lines.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from synth_core.operators.bridges import BRIDGES, CHANGERS
from synth_core.operators.operator import Kind, Operator

ORDER = (Kind.VOLUME, Kind.IMAGE, Kind.SIGNAL, Kind.SEQUENCE, Kind.VECTOR)
ANCHORS = frozenset({"dense", "convolution", "product", "attention", "recurrence", "transformer", "motif"})
PLACE = {"lookup": -1.0, "padding": 0.0, "normalisation": 2.0, "activation": 3.0, "arithmetic": 4.0,
         "distance": 5.0, "reshaping": 4.5, "dropout": 5.0, "pooling": 6.0, "upsampling": 0.4,
         "reduction": 7.0}  # fmt: skip


@dataclass(frozen=True)
class Track:
    """Operators that work on one kind of value. leaves: the kind that the last one should produce."""

    kind: Kind
    operators: tuple[Operator, ...]
    leaves: Kind | None


def arrange(operators: Sequence[Operator], rng: random.Random) -> list[Track]:
    """Divide the operators into tracks, in the order in which the program will run them."""
    kinds = _fewest_kinds(operators, rng)
    members: dict[Kind, list[Operator]] = {kind: [] for kind in kinds}
    for operator in operators:
        members[rng.choice([kind for kind in kinds if kind in operator.kinds])].append(operator)
    filled = [kind for kind in kinds if members[kind]]
    tracks = []
    for i, kind in enumerate(filled):
        ordered = _order(members[kind], rng)
        leaves = filled[i + 1] if i + 1 < len(filled) else rng.choice((Kind.VECTOR, None))
        bridges = [o for o in ordered if leaves and o.name in BRIDGES.get((kind, leaves), ())]
        if bridges:
            last = ordered.index(rng.choice(bridges))
            ordered = [*ordered[:last], *ordered[last + 1 :], ordered[last]]
        tracks.append(Track(kind, tuple(ordered), leaves if bridges or i + 1 < len(filled) else None))
    return tracks


def _fewest_kinds(operators: Sequence[Operator], rng: random.Random) -> list[Kind]:
    """Draw a smallest set of kinds such that each operator takes one of them. The result follows ORDER."""
    for count in range(1, len(ORDER) + 1):
        fits = [
            chosen
            for chosen in combinations(ORDER, count)
            if all(any(kind in operator.kinds for kind in chosen) for operator in operators)
        ]
        if fits:
            # In a program with images, a dense layer usually works on vectors, not on sequences.
            weights = [3.0 if Kind.VECTOR in chosen and count > 1 else 1.0 for chosen in fits]
            return list(rng.choices(fits, weights)[0])
    raise AssertionError("every operator takes some kind")


def _order(operators: list[Operator], rng: random.Random) -> list[Operator]:
    """Order the operators of a track: cells with one anchor each, and the other operators around anchors."""
    anchors = [operator for operator in operators if operator.section in ANCHORS]
    rng.shuffle(anchors)
    cells: list[list[tuple[float, Operator]]] = [[(1.0, anchor)] for anchor in anchors] or [[]]
    for operator in operators:
        if operator.section in ANCHORS:
            continue
        place = PLACE[operator.section]
        # The last cell often ends with the mean of a whole image. A pooling before that would have no effect.
        homes = cells[:-1] or cells if operator.section == "pooling" else cells
        cell = cells[0] if operator.section == "lookup" else rng.choice(homes)
        if operator.name in CHANGERS:
            cell, place = cells[-1], 9.0
        cell.append((place + rng.uniform(-0.8, 0.8), operator))
    return [operator for cell in cells for _, operator in sorted(cell, key=lambda pair: pair[0])]
