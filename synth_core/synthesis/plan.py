"""The plan of a program in words: each step with the shape it leaves; for prompts and repair hints."""

from __future__ import annotations

from synth_core.synthesis.draft import Draft, Value


def describe(d: Draft, outputs: list[Value]) -> str:
    """One line a step, `Conv2d(h1) -> h3 [4, 16, 32, 32]`; values are numbered in forward order.

    `Conv2d(x1), weights of h3, -> h4 [4, 16, 32, 32]`: the layer that made h3 is called again.
    """
    names: dict[str, str] = {}
    rows = []
    for i, given in enumerate(d.inputs):
        names[given.value.name] = f"x{i}" if len(d.inputs) > 1 else "x"
        dtype = (
            ""
            if given.value.tensor.is_floating_point()
            else f" {given.value.tensor.dtype}".replace("torch.", "")
        )
        rows.append(f"{names[given.value.name]}: {list(given.value.shape)}{dtype}")
    for line in d.lines:
        reads = list(dict.fromkeys(names[name] for name in line.reads))
        for value in line.outs:
            names[value.name] = f"h{len(names)}"
        shapes = ", ".join(f"{names[v.name]} {list(v.shape)}" for v in line.outs)
        what = line.operator if line.role == "operator" else "join" if line.role == "merge" else "reshape"
        shared = f", weights of {names[line.again]}," if line.again else ""
        rows.append(f"{what}({', '.join(reads)}){shared} -> {shapes}")
    rows.append(f"return {', '.join(names[v.name] for v in outputs)}")
    return "\n".join(rows)
