"""The sampler `coherent`: operators that belong together, so that a program needs little glue.

A program gets a theme, the kinds of value that it works on in order; each operator drawn takes one of them.
Where the theme goes from one kind to another, an operator that does just that is among those drawn. A row
that serves few kinds weighs more than one that serves all, or the rare kinds' own operators would drown.
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
ONE_MOTIF, TWO_MOTIFS = 0.4, 0.12  # chances that a program holds so many


def draw(rng: random.Random, counts: Mapping[Group, int]) -> list[str]:
    """Names for one program: `counts` of each group, all fit for one theme, and perhaps a motif or two."""
    themes = [theme for theme in THEMES if _serves(theme, counts)]
    theme = rng.choices(themes, [theme.weight for theme in themes])[0]
    wanted = dict(counts)
    bridge = _draw_bridge(rng, theme, wanted)
    chance = rng.random()
    wanted[Group.MOTIF] = (
        wanted.get(Group.MOTIF, 0) + (chance < ONE_MOTIF + TWO_MOTIFS) + (chance < TWO_MOTIFS)
    )
    drawn = [bridge] if bridge else []
    # The operators of the first kind give the theme its name: one core operator at least is of it.
    for group, count in wanted.items():
        for i in range(count):
            kinds = theme.kinds[:1] if group is Group.CORE and i == 0 else theme.kinds
            row = _draw_row(rng, group, kinds, taken=drawn)
            if row is not None:
                drawn.append(row)
    return [row.name for row in drawn]


def _serves(theme: Theme, counts: Mapping[Group, int]) -> bool:
    """Whether every group has something to offer, and a bridge can be afforded."""
    if any(count and not _rows(group, theme.kinds) for group, count in counts.items()):
        return False
    return len(theme.kinds) == 1 or counts.get(Group.SUPPORTING, 0) > 0


def _rows(group: Group, kinds: tuple[Kind, ...]) -> list[Operator]:
    return [row for row in in_group(group) if any(kind in row.kinds for kind in kinds)]


def _draw_bridge(rng: random.Random, theme: Theme, wanted: dict[Group, int]) -> Operator | None:
    """The operator that leads from the first kind to the second; counted against its group."""
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
