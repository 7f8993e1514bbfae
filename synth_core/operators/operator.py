"""One operator: a frozen row of the catalog. Rows hold strings only, so this imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Group(StrEnum):
    """The seed system's three groups, plus motifs, which only some samplers draw."""

    CORE = "core"
    COMPOUND = "compound"
    SUPPORTING = "supporting"
    MOTIF = "motif"


class Kind(StrEnum):
    """What the axes of a value mean; the shape alone does not tell a sequence from a signal."""

    VECTOR = "vector"  # (batch, features)
    SEQUENCE = "sequence"  # (batch, steps, features)
    SIGNAL = "signal"  # (batch, channels, length)
    IMAGE = "image"  # (batch, channels, height, width)
    VOLUME = "volume"  # (batch, channels, depth, height, width)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A row of the catalog.

    name: the seed system's name, unique (`Conv2d`, `ResidualAdd`).
    torch_name: dotted name of the torch module or function that defines it (`torch.nn.Conv2d`); for a
        motif, of the function at its heart.
    kinds: the kinds of value it takes, as its first operand, where a person would use it.
    section: what it is for, within its group (`activation`, `padding`); listings and the synthesizer use it.
    aliases: other names that mean this row (`HardSwish` for Hardswish).
    realised_by: dotted names of the functions and methods whose appearance in a captured graph realises
        this operator as its module does, e.g. `torch.nn.functional.relu`, `torch.Tensor.relu`.
    answered_by: rows that are a special case of this one, so that a program which realises them answers a
        request for it: a BatchNorm2d is a BatchNorm.
    patterns: of a motif, the sub-graphs that realise it (operators/patterns.py).
    no_op_in_eval: the operator returns its input unchanged in eval mode (Identity, Dropout).
    unwritable: why no program can hold it itself, so that another row answers for it; empty where one can.
    folds_to: the row it counts as in fingerprints (Gemm folds to Linear); empty for itself.
    """

    name: str
    group: Group
    torch_name: str
    kinds: tuple[Kind, ...]
    section: str
    aliases: tuple[str, ...] = ()
    realised_by: tuple[str, ...] = ()
    answered_by: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    no_op_in_eval: bool = False
    unwritable: str = ""
    folds_to: str = ""

    @property
    def fingerprint(self) -> str:
        """The name under which this operator enters fingerprints."""
        return self.folds_to or self.name


ANY = tuple(Kind)
SPATIAL = (Kind.SIGNAL, Kind.IMAGE, Kind.VOLUME)
TOKENS = (Kind.VECTOR, Kind.SEQUENCE)  # features last
KIND_OF_RANK = {1: Kind.SIGNAL, 2: Kind.IMAGE, 3: Kind.VOLUME}


def spelled(text: str) -> tuple[str, ...]:
    """Dotted names from their short forms: `F.relu` is torch.nn.functional.relu, `T.relu` a Tensor method.

    A bare word stands for the function and the method of that name alike: `exp` is torch.exp and T.exp.
    """
    return tuple(name for word in text.split() for name in _spell(word))


def _spell(word: str) -> tuple[str, ...]:
    head, _, tail = word.partition(".")
    match head:
        case "F":
            return (f"torch.nn.functional.{tail}",)
        case "T":
            return (f"torch.Tensor.{tail}",)
        case "torch":
            return (word,)
    return (f"torch.{word}", f"torch.Tensor.{word}")


def section(group: Group, name: str, kinds: tuple[Kind, ...]) -> Callable[..., Operator]:
    """A maker of the rows of one section: `row("ReLU", "F.relu relu")`, any field of Operator by keyword."""

    def row(operator: str, realised_by: str = "", **fields: Any) -> Operator:
        given = {"torch_name": f"torch.nn.{operator}", "kinds": kinds, **fields}
        return Operator(name=operator, group=group, section=name, realised_by=spelled(realised_by), **given)

    return row
