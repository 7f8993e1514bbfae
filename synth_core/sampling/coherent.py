"""The sampler `coherent`: it draws operators that fit together, so that a program needs little glue code.

Each program gets a theme: one or two kinds of value that it works on, in order. Each operator takes one of
these kinds. If the theme has two kinds, one operator converts the first kind to the second. An operator that
takes few kinds has a higher weight. Otherwise the operators that take all kinds would be drawn far too often.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from synth_core.operators.bridges import BRIDGES, CHANGERS
from synth_core.operators.catalog import in_group
from synth_core.operators.operator import Group, Kind, Operator


@dataclass(frozen=True)
class Theme:
    """The kinds of value that a program works on, in order, and the weight of this choice."""

    kinds: tuple[Kind, ...]
    weight: float


THEMES = (
    Theme((Kind.IMAGE,), 4),
    Theme((Kind.IMAGE, Kind.VECTOR), 4),
    Theme((Kind.SIGNAL,), 2),
    Theme((Kind.SIGNAL, Kind.VECTOR), 2),
    Theme((Kind.VOLUME,), 2),
    Theme((Kind.VOLUME, Kind.VECTOR), 2),
    Theme((Kind.VECTOR,), 3),
    Theme((Kind.SEQUENCE,), 5),
    Theme((Kind.SEQUENCE, Kind.VECTOR), 3),
    Theme((Kind.IMAGE, Kind.SEQUENCE), 6),
)
ONE_MOTIF, TWO_MOTIFS = 0.4, 0.12  # probabilities that a program has exactly that many motifs


def draw(rng: random.Random, counts: Mapping[Group, int]) -> list[str]:
    """Draw the operators of one program: `counts` of each group, all for one theme, plus up to two motifs."""
    themes = [theme for theme in THEMES if _serves(theme, counts)]
    theme = rng.choices(themes, [theme.weight for theme in themes])[0]
    wanted = dict(counts)
    bridge = _draw_bridge(rng, theme, wanted)
    chance = rng.random()
    wanted[Group.MOTIF] = (
        wanted.get(Group.MOTIF, 0) + (chance < ONE_MOTIF + TWO_MOTIFS) + (chance < TWO_MOTIFS)
    )
    drawn = [bridge] if bridge else []
    # At least one core operator takes the theme's first kind.
    for group, count in wanted.items():
        for i in range(count):
            kinds = theme.kinds[:1] if group is Group.CORE and i == 0 else theme.kinds
            row = _draw_row(rng, group, kinds, taken=drawn)
            if row is not None:
                drawn.append(row)
    return [row.name for row in drawn]


def _serves(theme: Theme, counts: Mapping[Group, int]) -> bool:
    """Whether every group has operators for the theme, and the counts leave room for a bridge."""
    if any(count and not _rows(group, theme.kinds) for group, count in counts.items()):
        return False
    return len(theme.kinds) == 1 or counts.get(Group.SUPPORTING, 0) > 0


def _rows(group: Group, kinds: tuple[Kind, ...]) -> list[Operator]:
    return [row for row in in_group(group) if any(kind in row.kinds for kind in kinds)]


def _draw_bridge(rng: random.Random, theme: Theme, wanted: dict[Group, int]) -> Operator | None:
    """Draw the operator that converts the first kind to the second. It uses up one supporting operator."""
    if len(theme.kinds) == 1:
        return None
    names = BRIDGES[theme.kinds[0], theme.kinds[1]]
    groups = (Group.SUPPORTING, Group.MOTIF)
    rows = [row for group in groups for row in _rows(group, theme.kinds[:1]) if row.name in names]
    bridge = rng.choices(rows, [_weight(row) for row in rows])[0]
    wanted[Group.SUPPORTING] -= 1
    return bridge


def _draw_row(
    rng: random.Random, group: Group, kinds: tuple[Kind, ...], taken: list[Operator]
) -> Operator | None:
    rows = _rows(group, kinds)
    if any(row.name in CHANGERS for row in taken):
        rows = [row for row in rows if row.name not in CHANGERS]
    return rng.choices(rows, [_weight(row) for row in rows])[0] if rows else None


def _weight(row: Operator) -> float:
    return 1 / len(row.kinds)
