"""Chooses natural names for values and attributes."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

from synth_core.operators.catalog import find
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Attribute, Input, Line, Value

PLAIN = ("x", "h", "out", "y", "z")
WEAK = frozenset(
    {"pooled", "padded", "merged", "encoded", "decoded", "attended", "tokens", "scores", "embedded", "flat"}
    | {"upsampled", "gate", "weights", "gated", "ratio", "outputs", "patches", "last", "h"}
)
"""Hints that are used as names only sometimes. Other hints say what a value is for, and are always used."""
BY_WEAK_HINT = 0.3
TAKEN = frozenset({"state", "memory_cell", "steps", "t", "self"})  # locals of loops


def name_values(
    rng: random.Random, inputs: Sequence[Input], lines: Sequence[Line], outputs: Sequence[Value]
) -> dict[str, str]:
    """Placeholder -> name. A name is used again when its earlier value is no longer needed."""
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
        if not line.block:  # a block may read a value after it has assigned another
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
    """Placeholder -> name. Attributes with the same hint are numbered."""
    total = Counter(attribute.hint for attribute in attributes)
    seen: Counter[str] = Counter()
    names = {}
    for attribute in attributes:
        seen[attribute.hint] += 1
        figure = str(seen[attribute.hint]) if total[attribute.hint] > 1 else ""
        names[attribute.name] = attribute.hint + figure
    return names


def name_operators(d: Draft) -> list[str]:
    """The operators in forward order, with the names of the operators actually written.

    For a general row this is the special case in its lines (`nn.MaxPool2d` for MaxPool). For a row that
    cannot be written, it is the row written in its place.
    """
    texts = {f"self.{attribute.name}": attribute.text for attribute in d.attributes}
    names = []
    for step, name in enumerate(d.steps):
        text = "\n".join(line.text for line in d.lines if line.operator and line.step == step)
        text += "".join(texts[read] for read in re.findall(r"self\.m\d+_\b", text))
        special = [other for other in find(name).answered_by if _is_written(other, text)]
        names.append(special[0] if special and not _is_written(name, text) else name)
    return names


def _is_written(name: str, text: str) -> bool:
    """Whether the text calls the module of that name, or an equivalent function."""
    functions = (f"F.{spelling.rpartition('.')[2]}(" for spelling in find(name).realised_by)
    return f"nn.{name}(" in text or any(function in text for function in functions)


def axes_of(d: Draft, value: Value) -> str:
    """A shape with the program's own names: `(batch_size, hidden_channels, 16, 16)`."""
    given = next((item for item in d.inputs if item.value is value), None)
    texts = given.axes if given else d.sizes.describe(value)
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def dtype_of(value: Value) -> str:
    """The dtype with a space before it: ` bool`, ` bfloat16`. Empty for float32, the default."""
    dtype = str(value.tensor.dtype).removeprefix("torch.")
    return "" if dtype == "float32" else f" {dtype}"
