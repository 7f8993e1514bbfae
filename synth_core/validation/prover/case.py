"""What the children left behind of one program, read and checked: graph, tensors, plain outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from synth_core.graph.rebuild import laid_out
from synth_core.graph.record import BadGraph, GraphRecord, Leaf
from synth_core.validation.evidence import DRAWS, Evidence

Outputs = list[torch.Tensor]


class Refused(Exception):
    """The program failed in its own process. `error` is what probe.describe says of it."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", "")))
        self.error = error


@dataclass(frozen=True)
class Case:
    """One captured program. Nothing in here is proved; all of it is well formed.

    tensors: values of the leaves that the graph reads, and of all inputs.
    plain: outputs of the text on those inputs. drawn: its outputs on each draw made after the capture.
    others: the inputs under another seed, None where the program gave none of that shape and dtype.
    again: outputs of the text on the same inputs, once more, after all draws.
    repeated: digests of outputs and state in a process with another hash seed; {} where there was none.
    """

    record: GraphRecord
    tensors: dict[str, torch.Tensor]
    plain: Outputs
    drawn: list[Outputs]
    again: Outputs
    others: list[torch.Tensor | None]
    facts: Mapping[str, Any]
    repeated: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[Leaf, ...]:
        return self.record.of_kind("input")

    def state(self, kind: str) -> list[str]:
        """Names of the parameters, or of the buffers, that the graph reads."""
        read = set(self.record.placeholders)
        return [leaf.name for leaf in self.record.of_kind(kind) if leaf.name in read]


def read(evidences: Sequence[Evidence]) -> Case:
    """The case that the streams hold: captured, then drawn and repeated where they are there.

    Raises `Refused` for a program that raised, `BadGraph` for a graph that is none, and KeyError, TypeError
    or ValueError for streams that lack what they must hold.
    """
    captured = evidences[0]
    for evidence in evidences:
        if "error" in evidence.values:
            raise Refused(evidence.json("error"))
        if not evidence.complete:
            raise ValueError("a stream has no end")
    text = captured.json("graph")
    if not isinstance(text, str):
        raise BadGraph("not the text of a record")
    record = GraphRecord.parse(text)
    inputs = record.of_kind("input")
    needed = {leaf.name for leaf in inputs} | set(record.placeholders)
    tensors = {
        leaf.name: laid_out(leaf, captured.tensor(f"leaf.{leaf.name}"))
        for leaf in record.leaves
        if leaf.name in needed
    }
    drawn = evidences[1] if len(evidences) > 1 else None
    plain = numbered(captured, "output")
    if not plain:
        raise ValueError("no outputs")
    return Case(
        record=record,
        tensors=tensors,
        plain=plain,
        drawn=[numbered(drawn, f"draw.{draw}") for draw in range(DRAWS)] if drawn else [],
        again=numbered(drawn, "again") if drawn else [],
        others=[_other(captured, position, leaf) for position, leaf in enumerate(inputs)],
        facts=dict(captured.json("facts")),
        repeated=evidences[2].json("digests") if len(evidences) > 2 else {},
    )


def numbered(evidence: Evidence, name: str) -> Outputs:
    """`name.0`, `name.1`, … as far as they go."""
    found: Outputs = []
    while f"{name}.{len(found)}" in evidence.tensors:
        found.append(evidence.tensor(f"{name}.{len(found)}"))
    return found


def _other(evidence: Evidence, position: int, leaf: Leaf) -> torch.Tensor | None:
    values = evidence.tensors.get(f"other.{position}")
    try:
        return None if values is None else laid_out(leaf, values)
    except BadGraph:
        return None
