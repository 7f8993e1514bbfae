"""The catalog: every operator that a request may name, and which torch calls count as that operator.

To add an operator, add one row to core.py, compound.py, supporting.py or motifs.py.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

from synth_core.errors import UsageError
from synth_core.operators.compound import COMPOUND
from synth_core.operators.core import CORE
from synth_core.operators.motifs import MOTIFS
from synth_core.operators.operator import Group, Operator
from synth_core.operators.patterns import parse, parts
from synth_core.operators.supporting import SUPPORTING

CATALOG: tuple[Operator, ...] = (*CORE, *COMPOUND, *SUPPORTING, *MOTIFS)

_BY_NAME: dict[str, Operator] = {
    name: operator for operator in CATALOG for name in (operator.name, *operator.aliases)
}

# `realised_by` has precedence over `torch_name`: torch.mul belongs to Multiply, though Scale names it too.
_BY_TORCH_NAME: dict[str, str] = {
    **{
        operator.torch_name: operator.name
        for operator in reversed(CATALOG)
        if operator.group is not Group.MOTIF
    },
    **{name: operator.name for operator in CATALOG for name in operator.realised_by},
}


def find(name: str) -> Operator:
    """The row with this name or alias. Raises `UsageError`, which suggests similar names."""
    operator = _BY_NAME.get(name)
    if operator is None:
        close = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(close)}?" if close else "`synth operators` lists them all"
        raise UsageError(f"unknown operator {name!r}; {hint}")
    return operator


def in_group(group: Group) -> tuple[Operator, ...]:
    """The rows of one group, in catalog order."""
    return tuple(operator for operator in CATALOG if operator.group is group)


def realised_operator(dotted_name: str) -> str | None:
    """The catalog name that a module class or function realises, or None.

    dotted_name: for a class, its public name or the place of its definition
        (`torch.nn.modules.conv.Conv2d`); for a function or method, its name from
        `torch.overrides.resolve_name`. In-place forms count as the plain form.

    A name alone cannot identify some operators, such as ResidualAdd: for them, see `operators.recognise`.
    """
    name = dotted_name
    if name.startswith("torch.nn.modules."):
        name = f"torch.nn.{name.rpartition('.')[2]}"
    elif name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return _BY_TORCH_NAME.get(name)


def made_of(name: str) -> list[tuple[str, ...]]:
    """The operators that a motif consists of, in forward order. Each item lists alternatives, usual first.

    A row that is not a motif consists of itself, and so does a motif that is a single torch function.
    """
    operator = find(name)
    return max((parts(parse(pattern)) for pattern in operator.patterns), key=len, default=[]) or [
        (operator.name,)
    ]


def missing(requested: Iterable[str], realised: Iterable[str]) -> list[str]:
    """The requested operators that `realised` does not cover. Both are multisets.

    Each realised operator covers one request: for its own name, or for a more general row (a BatchNorm2d
    covers BatchNorm). A motif that was not requested covers requests with its parts too. Requests with few
    possible answers are matched first. For this catalog, such a greedy match is exact.
    """
    names = Counter(realised)
    asked = Counter(find(name).name for name in requested)
    unanswered = asked - names
    spare = names - asked
    left = [part for name in spare.elements() for part in made_of(name)]
    left += [(name,) for name in spare.elements() if find(name).group is Group.MOTIF]
    still: list[str] = []
    for name in sorted(unanswered.elements(), key=lambda name: len(find(name).answered_by)):
        answers = {name, *find(name).answered_by}
        position = next((i for i, part in enumerate(left) if not answers.isdisjoint(part)), None)
        if position is None:
            still.append(name)
        else:
            del left[position]
    return still


def fingerprint(operators: Sequence[str]) -> tuple[str, ...]:
    """The operators as in fingerprints: motifs are split into parts; aliases and near-synonyms unified."""
    return tuple(find(part[0]).fingerprint for name in operators for part in made_of(name))
