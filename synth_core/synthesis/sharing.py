"""Weights that are used twice: made once in __init__, called twice in forward.

There are three cases: one encoder for two inputs, one block applied twice, and an embedding whose table also
projects back to the vocabulary. The first two write existing lines again for another value. Each new line
runs when it is written, and must pass the same checks as every other line.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from torch import nn

from synth_core.operators.catalog import find
from synth_core.operators.operator import Operator
from synth_core.synthesis import soundness
from synth_core.synthesis.draft import PLACEHOLDER, CannotWrite, Draft
from synth_core.synthesis.parts import Attribute, Line, Value

PAIR, TWICE = 0.035, 0.055  # shares of programs that try; some find nothing to share
NOW = 0.5  # probability, after a step, to share weights now
TIED = 0.25  # probability that an embedding of the right width projects back
MOST_LINES = 4  # lines that are written twice, at most
LINEAR = frozenset({"dense", "convolution", "product"})
COMPARING = frozenset(
    {"CosineSimilarity", "PairwiseDistance", "Subtract", "Add", "Multiply", "Bilinear", "BMM"}
    | {"FactorizedBilinear"}
)
"""Operators that compare a pair of encoded inputs."""


def draw(rng: random.Random) -> str:
    """Draw what a program should try: `pair`, `twice` or, mostly, nothing (empty)."""
    return rng.choices(("pair", "twice", ""), (PAIR, TWICE, 1 - PAIR - TWICE))[0]


def share(d: Draft, x: Value, waiting: list[Operator]) -> Value:
    """With some probability, repeat the lines that made x. Returns the new value, or x if nothing was done.

    If there are two values to compare, an operator of `waiting` that compares them is moved to the front.
    """
    if d.rng.random() >= NOW:
        return x
    mark = d.mark()
    try:
        y = _pair(d, x, waiting) if d.sharing == "pair" else _twice(d, x)
    except CannotWrite:
        d.undo(mark)
        return x
    d.sharing = ""
    return y


def tie(d: Draft, x: Value) -> Value:
    """With some probability, project x with an embedding's table, as language models do. Else returns x."""
    tables = [a.name for a in d.attributes if _looks_up(d, a, x.channels)]
    if not tables or x.axis != -1 or len(x.shape) < 2 or d.rng.random() >= TIED:
        return x
    name = d.rng.choice(tables)
    found = next(line for line in d.lines if f"self.{name}(" in line.text)
    mark = d.mark()
    d.operator, d.again = "Linear", found.outs[0].name
    try:
        y = d.emit(f"F.linear({x}, self.{name}.weight)", x.kind, "logits")
        soundness.check(y)
        d.steps.append("Linear")
    except CannotWrite:
        d.undo(mark)
        return x
    finally:
        d.operator = d.again = ""
    return y


def _looks_up(d: Draft, attribute: Attribute, width: int) -> bool:
    """Whether the attribute is an embedding of this width for tokens, not for positions."""
    table = getattr(d.module, attribute.name)
    words = isinstance(table, nn.Embedding) and "position" not in attribute.hint
    return words and table.embedding_dim == width


def _pair(d: Draft, x: Value, waiting: list[Operator]) -> Value:
    """Add a second input, apply the lines that made x to it, and compare the two results."""
    made = d.ancestors(x) | {x.name}
    read = [given for given in d.inputs if given.value.name in made]
    lines = _worth_writing_twice(d, [line for line in d.lines if _makes(line, made)])
    if len(read) != 1:
        raise CannotWrite("more than one input")
    first = read[0].value
    hint = d.choose("y", "other") if first.hint == "x" else f"other_{first.hint}"
    second = d.input_from(read[0].factory, read[0].axes, first.kind, hint)
    twin = _again(d, lines, first, second)[x.name]
    comparing = [row for row in waiting if row.name in COMPARING and x.kind in row.kinds]
    if comparing:
        waiting.remove(comparing[0])
        waiting.insert(0, comparing[0])
        return x
    ways = (f"torch.abs({x} - {twin})", f"{x} * {twin}", f"torch.cat([{x}, {twin}], dim={x.axis})")
    y = d.emit(d.rng.choices(ways, (3, 1, 2))[0], x.kind, "merged", role="merge")
    soundness.check(y)
    return y


def _twice(d: Draft, x: Value) -> Value:
    """Apply the lines that made x from an earlier value of the same shape to x as well."""
    made = d.ancestors(x) | {x.name}
    earlier = [v for v in d.offered if v.name in made and v is not x]
    blocks: list[tuple[Value, list[Line]]] = []
    for start in (v for v in earlier if v.shape == x.shape and v.kind is x.kind):
        between = made - d.ancestors(start) - {start.name} - {given.value.name for given in d.inputs}
        lines = [line for line in d.lines if _makes(line, between)]
        inside = {value.name for line in lines for value in line.outs}
        if {name for line in lines for name in line.reads} - inside == {start.name}:
            blocks.append((start, lines))
    if not blocks:
        raise CannotWrite("no block keeps the shape of its input")
    start, lines = d.rng.choice(blocks)
    if all(find(line.operator).section in LINEAR for line in lines if line.operator):
        raise CannotWrite("two linear maps in a row are one linear map")
    y = _again(d, _worth_writing_twice(d, lines), start, x)[x.name]
    soundness.check_effect(x, y)
    return y


def _makes(line: Line, names: set[str]) -> bool:
    return any(value.name in names for value in line.outs)


def _worth_writing_twice(d: Draft, lines: list[Line]) -> list[Line]:
    """Returns the lines. Raises `CannotWrite` if they are too many or too complex, or have no weights."""
    heads = {value.name for value in d.heads}
    if not 1 <= len(lines) <= MOST_LINES or any(line.block or _makes(line, heads) for line in lines):
        raise CannotWrite("too many lines, or too complex, to write twice")
    if not any(_holds_weights(d, line) for line in lines):
        raise CannotWrite("no weights to share")
    return lines


def _holds_weights(d: Draft, line: Line) -> bool:
    """Whether the line uses a parameter with more than one number per channel."""
    for name in re.findall(r"\bm\d+_\b", line.text):
        held = getattr(d.module, name)
        parameters = held.parameters() if isinstance(held, nn.Module) else (held,)
        if any(isinstance(p, nn.Parameter) and p.numel() > p.shape[0] for p in parameters):
            return True
    return False


def _again(d: Draft, lines: Sequence[Line], first: Value, other: Value) -> dict[str, Value]:
    """Write the lines again, with `other` in place of `first`. Returns the name of each value -> its twin."""
    twins = {first.name: other}
    last = {line.step: line for line in lines if line.operator}
    try:
        for line in lines:
            d.operator, d.idle = line.operator, line.idle
            d.again = line.outs[0].name if _holds_weights(d, line) else ""
            kinds, hints = [v.kind for v in line.outs], [v.hint for v in line.outs]
            targets = re.sub(r"\bv\d+_\b", "{}", line.targets)
            made = d.emit_many(_with(line.text, twins), kinds, hints, targets, line.role)
            for old, new in zip(line.outs, made, strict=True):
                twins[old.name] = new
                if old.name in d.private:
                    d.private.add(new.name)
                else:
                    soundness.check(new)
                    soundness.check_new(new, d.values)
            if last.get(line.step) is line:
                d.steps.append(line.operator)
    finally:
        d.operator, d.idle, d.again = "", False, ""
    return twins


def _with(text: str, twins: Mapping[str, Value]) -> str:
    return PLACEHOLDER.sub(lambda match: str(twins.get(match.group(), match.group())), text)
