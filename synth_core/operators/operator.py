"""One operator: a frozen row of the catalog. Rows hold strings only, so this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Group(StrEnum):
    """The seed system's three groups, plus motifs, which only some samplers draw."""

    CORE = "core"
    COMPOUND = "compound"
    SUPPORTING = "supporting"
    MOTIF = "motif"


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A row of the catalog.

    name: the seed system's name, unique (`Conv2d`, `ResidualAdd`).
    torch_name: dotted name of the torch module or function that defines it (`torch.nn.Conv2d`).
    aliases: other names that mean this row (`HardSwish` for Hardswish).
    realised_by: dotted names of the modules, functions and methods whose appearance in a captured
        graph realises this operator, e.g. `torch.nn.functional.relu`, `torch.Tensor.relu`.
    no_op_in_eval: the operator returns its input unchanged in eval mode (Identity, Dropout).
    unwritable: why the constructive synthesizer cannot write it; empty where it can.
    folds_to: the row it counts as in fingerprints (Gemm folds to Linear); empty for itself.
    """

    name: str
    group: Group
    torch_name: str
    aliases: tuple[str, ...] = ()
    realised_by: tuple[str, ...] = ()
    no_op_in_eval: bool = False
    unwritable: str = ""
    folds_to: str = ""
