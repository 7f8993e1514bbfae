"""The parts of a draft: values, attributes, lines, inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import torch

from synth_core.operators.operator import Kind


@dataclass(eq=False)
class Value:
    """One value of forward. Text refers to it by `str(value)`. hint: a word from which its name is chosen.

    Only `Draft.rerun` replaces the tensor.
    """

    name: str
    tensor: torch.Tensor
    kind: Kind
    hint: str

    def __str__(self) -> str:
        return self.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def axis(self) -> int:
        """The channel or feature axis: -1 for sequences and vectors, else 1."""
        return -1 if self.kind in (Kind.SEQUENCE, Kind.VECTOR) else 1

    @property
    def channels(self) -> int:
        return int(self.tensor.shape[self.axis])

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[2:] if self.kind not in (Kind.SEQUENCE, Kind.VECTOR) else ()


@dataclass(frozen=True)
class Attribute:
    """`self.<name> = text` in __init__."""

    name: str
    hint: str
    text: str


@dataclass(frozen=True)
class Line:
    """A statement of forward.

    text: an expression, or several lines if `block` is set.
    role: operator (requested), merge (joins values) or glue (only adapts a shape).
    idle: it has no effect in eval mode, such as a Dropout.
    step: position of its operator in `Draft.steps`.
    again: an earlier value made with the same weights, or empty.
    """

    outs: tuple[Value, ...]
    text: str
    role: str
    operator: str = ""
    block: bool = False
    targets: str = ""
    idle: bool = False
    step: int = 0
    again: str = ""

    @property
    def statement(self) -> str:
        """The line as Python source, with placeholders."""
        return self.text if self.block else f"{self.targets} = {self.text}"

    @cached_property
    def reads(self) -> list[str]:
        mine = {value.name for value in self.outs}
        return [name for name in re.findall(r"\bv\d+_\b", self.text) if name not in mine]


@dataclass(frozen=True)
class Input:
    """An input of the program.

    factory: the expression in get_inputs that makes it, such as `torch.randn(batch_size, 16)`.
    axes: the size of each axis as text, such as `batch_size` and `16`.
    """

    value: Value
    factory: str
    axes: tuple[str, ...]


class Mark(NamedTuple):
    """Lengths of a draft's lists, to which `Draft.undo` cuts them back."""

    inputs: int
    attributes: int
    lines: int
    values: int
    heads: int
    steps: int
    constants: int
    widths: int


def entries(lines: Sequence[Line]) -> list[list[Line]]:
    """Group the lines: those of one operator together, every other line alone."""

    def key(numbered: tuple[int, Line]) -> tuple[int, int]:
        place, line = numbered
        return (line.step, -1 if line.operator else place)

    return [[line for _, line in group] for _, group in groupby(enumerate(lines), key)]
