"""The plan of a program in words: each step with the shape of its result. Repair prompts show it."""

from __future__ import annotations

from synth_core.synthesis.draft import Draft
from synth_core.synthesis.names import dtype_of
from synth_core.synthesis.parts import Line, Value, entries


def describe(d: Draft, outputs: list[Value]) -> str:
    """Describe a program: one entry per operator, even if it has several lines: `Linear(h1) -> h2 [4, 16]`.

    Values are numbered in forward order. Values that only one operator uses internally are left out. Lines
    that no request asked for are a `join` or a `reshape`. An input shows its dtype if that is not float32.
    `Conv2d(x1), weights of h2, -> h3 [4, 16, 32, 32]` means that the layer that made h2 is called again.
    """
    names: dict[str, str] = {}
    rows = []
    for i, given in enumerate(d.inputs):
        names[given.value.name] = f"x{i}" if len(d.inputs) > 1 else "x"
        rows.append(f"{names[given.value.name]}: {list(given.value.shape)}{dtype_of(given.value)}")
    returned = {value.name for value in outputs}
    parts = entries(d.lines)
    for place, lines in enumerate(parts):
        made = [value for line in lines for value in line.outs]
        later = {name for other in parts[place + 1 :] for line in other for name in line.reads} | returned
        left = [value for value in made if value.name in later]
        own = {value.name for value in made}
        reads = dict.fromkeys(names[n] for line in lines for n in line.reads if n not in own)
        for value in left:
            names[value.name] = f"h{len(set(names.values()))}"
        for value in made:  # internal values too, because `again` may name one
            names.setdefault(value.name, names[left[-1].name])
        again = next((names[line.again] for line in lines if line.again), "")
        shared = f", weights of {again}," if again else ""
        shapes = ", ".join(f"{names[value.name]} {list(value.shape)}" for value in left)
        rows.append(f"{_what(lines[0])}({', '.join(reads)}){shared} -> {shapes}")
    rows.append(f"return {', '.join(names[v.name] for v in outputs)}")
    return "\n".join(rows)


def _what(line: Line) -> str:
    return line.operator or ("join" if line.role == "merge" else "reshape")
