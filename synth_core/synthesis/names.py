"""Names that a person would choose, for values by how long they live and for attributes by what they are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from synth_core.synthesis.draft import Attribute, Draft, Input, Line, Value

PLAIN = ("x", "h", "out", "y", "z")
WEAK = frozenset(
    {"pooled", "padded", "merged", "encoded", "decoded", "attended", "tokens", "scores", "embedded", "flat"}
    | {"upsampled", "gate", "weights", "gated", "ratio", "outputs", "patches", "last", "h"}
)
"""What a value is called now and then; any other hint says what the value is for, and is always used."""
BY_WEAK_HINT = 0.3
TAKEN = frozenset({"state", "memory_cell", "steps", "t", "self"})  # locals of loops


def name_values(
    rng: random.Random, inputs: Sequence[Input], lines: Sequence[Line], outputs: Sequence[Value]
) -> dict[str, str]:
    """Placeholder -> name. A name is used again once the value that it stood for is not needed any more."""
    last_use = {value.name: len(lines) for value in outputs}
    for i, line in enumerate(lines):
        for name in line.reads:
            last_use[name] = max(last_use.get(name, 0), i)
    names: dict[str, str] = {}
    live: set[str] = set()

    def bind(value: Value, wanted: str) -> None:
        name, figure = wanted, 2
        while name in live or name in TAKEN:
            name, figure = f"{wanted}{figure}", figure + 1
        names[value.name] = name
        live.add(name)

    for given in inputs:
        bind(given.value, given.value.hint)
    for i, line in enumerate(lines):
        dying = [names[name] for name in dict.fromkeys(line.reads) if last_use[name] == i]
        if not line.block:  # a block may read after it has bound
            live.difference_update(dying)
        for value in line.outs:
            if value.name not in last_use:
                names[value.name] = "_"
            elif value.hint not in WEAK or (value.hint != "h" and rng.random() < BY_WEAK_HINT):
                bind(value, value.hint)
            else:
                plain = [name for name in (*dying, *PLAIN) if name in PLAIN and name not in live]
                bind(value, plain[0] if plain else "h")
        live.difference_update(set(dying) - {names[value.name] for value in line.outs})
    return names


def name_attributes(attributes: Sequence[Attribute]) -> dict[str, str]:
    """Placeholder -> name; several of one sort are numbered."""
    total = Counter(attribute.hint for attribute in attributes)
    seen: Counter[str] = Counter()
    names = {}
    for attribute in attributes:
        seen[attribute.hint] += 1
        figure = str(seen[attribute.hint]) if total[attribute.hint] > 1 else ""
        names[attribute.name] = attribute.hint + figure
    return names


def axes_of(d: Draft, value: Value) -> str:
    """`(batch_size, hidden_channels, 16, 16)`: a shape by the program's own names."""
    given = next((item for item in d.inputs if item.value is value), None)
    texts = given.axes if given else d.sizes.describe(value)
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"
