"""One operator: a frozen row of the catalog. Rows contain strings only, so no torch is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Group(StrEnum):
    """The three groups of the seed system, plus motifs. Only some samplers draw motifs."""

    CORE = "core"
    COMPOUND = "compound"
    SUPPORTING = "supporting"
    MOTIF = "motif"


class Kind(StrEnum):
    """What the axes of a value mean. The shape alone does not distinguish a sequence from a signal."""

    VECTOR = "vector"  # (batch, features)
    SEQUENCE = "sequence"  # (batch, steps, features)
    SIGNAL = "signal"  # (batch, channels, length)
    IMAGE = "image"  # (batch, channels, height, width)
    VOLUME = "volume"  # (batch, channels, depth, height, width)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A row of the catalog.

    name: unique name from the seed system (`Conv2d`, `ResidualAdd`).
    torch_name: dotted name of the torch module or function that defines it (`torch.nn.Conv2d`). For a motif:
        its main function.
    kinds: the kinds of value that its first operand usually has.
    section: its purpose within the group (`activation`, `padding`). Listings and the synthesizer use it.
    aliases: other names of this row (`HardSwish` for Hardswish).
    realised_by: dotted names of functions and methods that realise this operator in a captured graph, as its
        module does, e.g. `torch.nn.functional.relu`, `torch.Tensor.relu`.
    answered_by: rows that are special cases of this one. They satisfy a request for it: a BatchNorm2d is a
        BatchNorm.
    patterns: for a motif, the sub-graphs that realise it (syntax: operators/patterns.py).
    no_op_in_eval: the operator returns its input unchanged in eval mode (Identity, Dropout).
    unwritable: why no program can contain it, so that another row must satisfy requests. Empty if one can.
    folds_to: the row that it counts as in fingerprints (Gemm counts as Linear). Empty: itself.
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
        """The operator's name in fingerprints."""
        return self.folds_to or self.name


ANY = tuple(Kind)
SPATIAL = (Kind.SIGNAL, Kind.IMAGE, Kind.VOLUME)
TOKENS = (Kind.VECTOR, Kind.SEQUENCE)  # features last
KIND_OF_RANK = {1: Kind.SIGNAL, 2: Kind.IMAGE, 3: Kind.VOLUME}


def spelled(text: str) -> tuple[str, ...]:
    """Expand short forms to dotted names: `F.relu` to torch.nn.functional.relu, `T.relu` to a Tensor method.

    A word without a dot means both the function and the method: `exp` is torch.exp and torch.Tensor.exp.
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
    """A function that makes the rows of one section: `row("ReLU", "F.relu relu")`.

    Other fields of `Operator` are keyword arguments.
    """

    def row(operator: str, realised_by: str = "", **fields: Any) -> Operator:
        given = {"torch_name": f"torch.nn.{operator}", "kinds": kinds, **fields}
        return Operator(name=operator, group=group, section=name, realised_by=spelled(realised_by), **given)

    return row
