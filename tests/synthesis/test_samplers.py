"""The samplers `coherent` and `coverage`."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from synth_core.operators.catalog import CATALOG, find
from synth_core.operators.operator import Group
from synth_core.sampling import coherent, coverage

COUNTS = {Group.CORE: 2, Group.COMPOUND: 1, Group.SUPPORTING: 4}


def draws(n: int, counts: dict[Group, int]) -> list[list[str]]:
    return [coherent.draw(random.Random(seed), counts) for seed in range(n)]


@pytest.mark.parametrize(
    "counts",
    [COUNTS, {Group.CORE: 3}, {Group.COMPOUND: 2, Group.SUPPORTING: 1}, {Group.CORE: 1, Group.SUPPORTING: 0}],
)
def test_counts_are_kept(counts: dict[Group, int]) -> None:
    for names in draws(50, counts):
        drawn = Counter(find(name).group for name in names)
        # A bridge that is a motif stands for one supporting operator.
        assert drawn[Group.SUPPORTING] in {counts.get(Group.SUPPORTING, 0) - i for i in (0, 1)}
        assert drawn[Group.CORE] == counts.get(Group.CORE, 0)
        assert drawn[Group.COMPOUND] == counts.get(Group.COMPOUND, 0)


def test_operators_of_a_program_share_a_theme() -> None:
    for names in draws(100, COUNTS):
        assert any(
            all(set(theme.kinds) & set(find(name).kinds) for name in names) for theme in coherent.THEMES
        )


def test_every_operator_comes_up_and_a_third_of_programs_hold_a_motif() -> None:
    counts = [{Group.CORE: 2, Group.COMPOUND: seed % 2, Group.SUPPORTING: 4} for seed in range(2000)]
    drawn = [coherent.draw(random.Random(seed), count) for seed, count in enumerate(counts)]
    seen = Counter(name for names in drawn for name in names)
    assert min(seen[row.name] for row in CATALOG) >= 5
    motifs = sum(any(find(name).group is Group.MOTIF for name in names) for names in drawn)
    assert motifs >= 0.3 * len(drawn)


def test_same_seed_same_names() -> None:
    assert draws(20, COUNTS) == draws(20, COUNTS)
    seen = coverage.Seen.of([(["Conv2d", "ReLU"], True)])
    first = coverage.draw(random.Random(3), COUNTS, seen)
    assert coverage.draw(random.Random(3), COUNTS, seen) == first


def test_coverage_goes_where_nothing_is_yet() -> None:
    """Pairs seen after 150 programs: steered against unsteered, from the same random streams."""
    steered, plain = coverage.Seen(), coverage.Seen()
    for seed in range(150):
        steered.add(coverage.draw(random.Random(seed), COUNTS, steered), accepted=True)
        plain.add(coherent.draw(random.Random(seed), COUNTS), accepted=True)
    assert len(steered.held) > 1.1 * len(plain.held)


@pytest.mark.parametrize(
    ("asked", "realised"),
    [
        ("BatchNorm", "BatchNorm2d"),
        ("MaxPool", "MaxPool1d"),
        ("AvgPool", "AvgPool3d"),
        ("CrossMapLRN2d", "LocalResponseNorm"),
        ("HardSwish", "Hardswish"),
    ],
)
def test_what_is_realised_under_another_name_is_not_chased(asked: str, realised: str) -> None:
    seen = coverage.Seen.of([([realised, "Conv2d"], True)] * 9)
    assert coverage.promise([asked, "Conv2d"], seen) == coverage.promise([realised, "Conv2d"], seen)
    assert coverage.promise([asked, "Conv2d"], seen) < coverage.promise(["GELU", "Conv2d"], seen)


def test_coverage_avoids_what_always_fails() -> None:
    seen = coverage.Seen.of([(["LSTM"], False)] * 50)
    assert coverage.promise(["GRU", "Linear"], seen) > coverage.promise(["LSTM", "Linear"], seen)
