"""KernelBench as names, operator lists and hashes: programs like its problems must not be trained on.

`kernelbench.json` is written by scripts/kernelbench_facts.py from the public benchmark.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from synth_core.filtering.fingerprints import Fingerprints
from synth_core.operators.catalog import fingerprint
from synth_core.records import operator_signature

PATH = Path(__file__).with_name("kernelbench.json")


class _Table(NamedTuple):
    """From a fingerprint to the first problem (by level and number) that has it."""

    text: dict[str, str]
    shape: dict[str, str]
    operators: dict[str, str]


def matches(prints: Fingerprints) -> Iterator[tuple[str, str]]:
    """(tier, problem) for each tier that matches, the surest first.

    Tiers: text, form, operators. A problem reads `level2/4_Conv2d_Mish_Mish`.
    """
    table = _table()
    found = (
        ("text", table.text.get(prints.text)),
        ("form", table.shape.get(prints.shape)),
        ("operators", by_operators(prints.operators)),
    )
    yield from ((tier, problem) for tier, problem in found if problem)


def by_operators(operators: Sequence[str]) -> str:
    """The problem whose name or code gives these operators in this order, after folding; empty if none.

    The benchmark calls its Linear layers Matmul or Gemm, so a name's Matmul stands for either.
    """
    return _table().operators.get(operator_signature(fingerprint(operators)), "")


@functools.cache
def _table() -> _Table:
    table = _Table({}, {}, {})
    for problem in json.loads(PATH.read_text(encoding="utf-8"))["problems"]:
        reference = f"level{problem['level']}/{problem['name']}"
        table.text.setdefault(problem["text"], reference)
        table.shape.setdefault(problem["shape"], reference)
        for names in problem["operators"]:
            linear = ["Linear" if name == "Matmul" else name for name in names]
            for spelling in (names, linear):
                table.operators.setdefault(operator_signature(spelling), reference)
    return table
