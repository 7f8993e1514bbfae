"""A benchmark as fingerprints, so that programs can be compared with it. No text of any problem is stored."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from synth_core.filtering.fingerprints import Fingerprints, operator_set
from synth_core.filtering.sketch import NEAR, similarity
from synth_core.operators.catalog import fingerprint
from synth_core.records import Graph, Record, operator_signature

KERNELBENCH = Path(__file__).with_name("kernelbench.json")


class Problem(Record):
    """The fingerprints of one benchmark problem.

    operators: up to three lists: from its name, from its text and from its graph.
    """

    name: str
    operators: tuple[tuple[str, ...], ...]
    text: str
    form: str
    graph: str
    sketch: str

    @classmethod
    def of(cls, name: str, source: str, *, named: Sequence[str] = (), graph: Graph | None = None) -> Problem:
        """Compute the fingerprints of one problem. named: operators that the problem's name lists."""
        prints = Fingerprints.of(source, graph)
        lists = (fingerprint(operators) for operators in (named, prints.written, prints.operators))
        return cls(
            name=name,
            operators=tuple(dict.fromkeys(operators for operators in lists if operators)),
            text=prints.text,
            form=prints.form,
            graph=prints.graph,
            sketch=base64.b64encode(prints.sketch).decode(),
        )


class Match(NamedTuple):
    """A match of a program with a problem.

    tier: text, form, graph, operators or near. score: similarity from 0 to 1; 1 for all tiers but near.
    """

    tier: str
    problem: str
    score: float


@dataclass(frozen=True)
class Reference:
    """Maps each fingerprint to the first problem that has it. `sketches` are keyed by set of operators."""

    text: dict[str, str]
    form: dict[str, str]
    graph: dict[str, str]
    operators: dict[str, str]
    sketches: dict[str, list[tuple[bytes, str]]]

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Reference:
        """Make a reference from problems."""
        reference = cls({}, {}, {}, {}, {})
        for problem in problems:
            reference.text.setdefault(problem.text, problem.name)
            reference.form.setdefault(problem.form, problem.name)
            reference.graph.setdefault(problem.graph, problem.name)
            sketch = base64.b64decode(problem.sketch)
            for names in problem.operators:
                for spelling in (names, _linear(names)):
                    reference.operators.setdefault(operator_signature(spelling), problem.name)
                reference.sketches.setdefault(operator_set(names), []).append((sketch, problem.name))
        for table in (reference.text, reference.form, reference.graph):
            table.pop("", None)  # an empty fingerprint matches nothing
        return reference

    def match(self, prints: Fingerprints) -> Match | None:
        """The strongest match of a program, or None. Text is strongest, then form, graph, operators, near."""
        exact = (
            Match("text", self.text.get(prints.text, ""), 1.0),
            Match("form", self.form.get(prints.form, ""), 1.0),
            Match("graph", self.graph.get(prints.graph, ""), 1.0),
            Match("operators", self.holds(prints.operators) or self.holds(prints.written), 1.0),
        )
        return next((match for match in exact if match.problem), self.nearest(prints, at_least=NEAR))

    def holds(self, operators: Sequence[str]) -> str:
        """The problem with these operators in this order, or empty. Variants of an operator count as one."""
        return self.operators.get(operator_signature(fingerprint(operators)), "") if operators else ""

    def nearest(self, prints: Fingerprints, *, at_least: float = 0.0) -> Match | None:
        """The most similar text among problems with the same set of operators, or None below `at_least`."""
        candidates = self.sketches.get(prints.operator_set(), []) if prints.operators else []
        scored = [Match("near", name, similarity(prints.sketch, other)) for other, name in candidates]
        best = max(scored, key=lambda match: match.score, default=None)
        return best if best and best.score >= at_least else None


def _linear(names: Sequence[str]) -> tuple[str, ...]:
    """Replace Matmul by Linear: KernelBench's names call Linear layers Matmul or Gemm."""
    return tuple("Linear" if name == "Matmul" else name for name in names)


@functools.cache
def kernelbench() -> Reference:
    """Levels 1 to 4 of KernelBench. scripts/kernelbench_facts.py makes it from the public repository."""
    return Reference.of(_read(KERNELBENCH))


def _read(path: Path) -> Iterator[Problem]:
    yield from (
        Problem.model_validate(row) for row in json.loads(path.read_text(encoding="utf-8"))["problems"]
    )
