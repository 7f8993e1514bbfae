"""The catalog: every operator a program may be asked to hold, and what counts as holding it.

Adding an operator is adding one row to core.py, compound.py, supporting.py or motifs.py.
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

# A row that owns a torch name comes before one that merely describes itself by it (Scale by torch.mul).
_BY_TORCH_NAME: dict[str, str] = {
    **{
        operator.torch_name: operator.name
        for operator in reversed(CATALOG)
        if operator.group is not Group.MOTIF
    },
    **{name: operator.name for operator in CATALOG for name in operator.realised_by},
}


def find(name: str) -> Operator:
    """The row called `name`, by its own name or an alias; `UsageError` names the closest otherwise."""
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

    Takes a class by its public name or by where it is defined (`torch.nn.modules.conv.Conv2d`), and a
    function or method by the name that `torch.overrides.resolve_name` gives; in-place forms count alike.
    What the name alone cannot tell (ResidualAdd, F.pad) `operators.recognise` reads from the graph.
    """
    name = dotted_name
    if name.startswith("torch.nn.modules."):
        name = f"torch.nn.{name.rpartition('.')[2]}"
    elif name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return _BY_TORCH_NAME.get(name)


def made_of(name: str) -> list[tuple[str, ...]]:
    """What a motif is made of, in forward order, each part as its alternatives, the usual first.

    Any other row, and a motif that is one function of torch, is made of itself.
    """
    operator = find(name)
    return max((parts(parse(pattern)) for pattern in operator.patterns), key=len, default=[]) or [
        (operator.name,)
    ]


def missing(requested: Iterable[str], realised: Iterable[str]) -> list[str]:
    """The requested operators that `realised` does not answer, both taken as multisets.

    Each realised operator answers one request: its own name's, or that of a more general row (a
    BatchNorm2d answers BatchNorm). A motif that nobody asked for answers with its parts too. Requests that
    few can answer are served first: a greedy match is then exact for the catalog, whose answers do not cross.
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
    """The operators as they enter fingerprints: motifs taken apart, aliases and near-synonyms folded."""
    return tuple(find(part[0]).fingerprint for name in operators for part in made_of(name))
