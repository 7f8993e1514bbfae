"""What the children wrote about one program, read and checked: graph, tensors, outputs of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import fx

from synth_core.graph import draw
from synth_core.graph.rebuild import empty, laid_out, rebuild
from synth_core.graph.record import BadGraph, GraphRecord, Leaf
from synth_core.validation.evidence import DRAWS, SAMPLE, Evidence

Outputs = list[torch.Tensor]
CPU: Final = torch.device("cpu")


class Refused(Exception):
    """The program failed in its child. error: the exception, as inside/run.py describes it."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", "")))
        self.error = error


@dataclass(frozen=True)
class Case:
    """One captured program. It has the right form, but nothing in it is proved.

    tensors: values of the leaves that the graph reads, and of all inputs.
    plain: outputs of the text on these inputs. again: the same once more, after all draws.
    draws: the inputs of each draw after the capture. drawn: outputs of the text on them.
    others: the inputs under another seed; None if the program gave none of that shape and dtype.
    repeated: digests of outputs and state in a process with another hash seed; {} if there was none.
    device: where the graph runs and the tensors are. most: how many elements of an output are compared.
    brief: the text ran on one draw only. The inputs of that draw then replace those of the program.
    """

    record: GraphRecord
    tensors: dict[str, torch.Tensor]
    plain: Outputs
    drawn: list[Outputs]
    again: Outputs
    others: list[torch.Tensor | None]
    facts: Mapping[str, Any]
    draws: list[list[torch.Tensor]]
    repeated: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = CPU
    brief: bool = False

    @property
    def most(self) -> int | None:
        return SAMPLE if self.brief else None

    def module(
        self, record: GraphRecord | None = None, tensors: Mapping[str, torch.Tensor] | None = None, **how: Any
    ) -> fx.GraphModule:
        """The rebuilt graph. how: further arguments of `rebuild`."""
        device = None if self.device == CPU else self.device
        return rebuild(record or self.record, tensors or self.tensors, device=device, **how)

    @property
    def inputs(self) -> tuple[Leaf, ...]:
        return self.record.of_kind("input")

    def state(self, kind: str) -> list[str]:
        """Names of the parameters, or of the buffers, that the graph reads."""
        read = set(self.record.placeholders)
        return [leaf.name for leaf in self.record.of_kind(kind) if leaf.name in read]


def read(
    evidences: Sequence[Evidence], draw_seed: int, device: torch.device = CPU, brief: bool = False
) -> Case:
    """The case in the streams: what was captured, then what was drawn and repeated, if they are there.

    draw_seed: seed of the draws after the capture. brief: whether the request was brief (inside/run.py).
    Raises `Refused` if the program raised, `BadGraph` if the record is not a valid graph, and KeyError,
    TypeError or ValueError if a stream lacks something.
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
    read = set(record.placeholders)
    tensors = {
        leaf.name: laid_out(leaf, captured.tensor(f"leaf.{leaf.name}").to(device))
        for leaf in record.leaves
        if leaf.name in read and leaf.kind != "input"
    }
    drawn = evidences[1] if len(evidences) > 1 else None
    outputs = [numbered(drawn, f"draw.{number}") for number in range(1 if brief else DRAWS)] if drawn else []
    plain = numbered(captured, "output")
    if not (plain or (brief and outputs and outputs[0])):
        raise ValueError("no outputs")
    again = numbered(drawn, "again") if drawn else []
    if not brief and len(again) != len(plain):
        raise ValueError("no second run")
    values = [captured.tensor(f"leaf.{leaf.name}") for leaf in inputs]
    draws = [_draw(inputs, values, draw_seed + number, device) for number in range(len(outputs) + brief)]
    own = draws[0] if brief else list(map(laid_out, inputs, values))
    others: list[torch.Tensor | None] = [*draws.pop()] if brief else _others(captured, inputs)
    return Case(
        record=record,
        tensors={**tensors, **dict(zip((leaf.name for leaf in inputs), own, strict=True))},
        plain=plain,
        drawn=outputs,
        again=again,
        others=others,
        facts=dict(captured.json("facts")),
        draws=draws,
        repeated=evidences[2].json("digests") if len(evidences) > 2 else {},
        device=device,
        brief=brief,
    )


def _draw(
    inputs: Sequence[Leaf], values: Sequence[torch.Tensor], seed: int, device: torch.device
) -> list[torch.Tensor]:
    """The inputs that the text got on that draw."""
    return [
        draw.drawn(value.reshape(-1), empty(leaf, value.dtype, device), seed, position)
        for position, (leaf, value) in enumerate(zip(inputs, values, strict=True))
    ]


def numbered(evidence: Evidence, name: str) -> Outputs:
    """`name.0`, `name.1`, … up to the last that is there."""
    found: Outputs = []
    while f"{name}.{len(found)}" in evidence.tensors:
        found.append(evidence.tensor(f"{name}.{len(found)}"))
    return found


def _others(evidence: Evidence, inputs: Sequence[Leaf]) -> list[torch.Tensor | None]:
    return [_other(evidence, position, leaf) for position, leaf in enumerate(inputs)]


def _other(evidence: Evidence, position: int, leaf: Leaf) -> torch.Tensor | None:
    values = evidence.tensors.get(f"other.{position}")
    try:
        return None if values is None else laid_out(leaf, values)
    except BadGraph:
        return None
