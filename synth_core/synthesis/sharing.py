"""Weights used twice: made once in __init__, called again in forward.

People do so in three cases: one encoder for two inputs, one block applied twice, and an embedding whose table
projects back to the vocabulary. The first two are lines that are there already, written again for another
value; each runs as it is written and is held to what any other line is held to.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from torch import nn

from synth_core.errors import CannotWrite
from synth_core.operators.catalog import find
from synth_core.operators.operator import Operator
from synth_core.synthesis import soundness
from synth_core.synthesis.draft import PLACEHOLDER, Draft
from synth_core.synthesis.parts import Attribute, Line, Value

PAIR, TWICE = 0.035, 0.055  # shares of programs that try; some find nothing to use again
NOW = 0.5  # chance, after a step, that what is there is used again
TIED = 0.25  # chance that an embedding of the right width projects back
MOST_LINES = 4  # written twice; nobody repeats more by hand
LINEAR = frozenset({"dense", "convolution", "product"})
COMPARING = frozenset(
    {"CosineSimilarity", "PairwiseDistance", "Subtract", "Add", "Multiply", "Bilinear", "BMM"}
    | {"FactorizedBilinear"}
)
"""Operators that a pair of encoded inputs is made for."""


def draw(rng: random.Random) -> str:
    """What a program is to try: `pair`, `twice` or, mostly, nothing."""
    return rng.choices(("pair", "twice", ""), (PAIR, TWICE, 1 - PAIR - TWICE))[0]


def share(d: Draft, x: Value, waiting: list[Operator]) -> Value:
    """Perhaps use what led to x once more; returns the value to go on with, x itself where nothing was done.

    An operator of `waiting` that compares two values is put first, once there are two to compare.
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
    """Perhaps project x by an embedding's own table, as language models do; x itself where none fits."""
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
    """Whether it is a table of words; nobody predicts positions."""
    table = getattr(d.module, attribute.name)
    words = isinstance(table, nn.Embedding) and "position" not in attribute.hint
    return words and table.embedding_dim == width


def _pair(d: Draft, x: Value, waiting: list[Operator]) -> Value:
    """What made x of one input makes another value of a second input; the two are compared."""
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
    """What made x of an earlier value of the same shape is applied to x as well."""
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
        raise CannotWrite("nothing leaves the shape that it takes")
    start, lines = d.rng.choice(blocks)
    if all(find(line.operator).section in LINEAR for line in lines if line.operator):
        raise CannotWrite("two linear maps in a row are one")
    y = _again(d, _worth_writing_twice(d, lines), start, x)[x.name]
    soundness.check_effect(x, y)
    return y


def _makes(line: Line, names: set[str]) -> bool:
    return any(value.name in names for value in line.outs)


def _worth_writing_twice(d: Draft, lines: list[Line]) -> list[Line]:
    heads = {value.name for value in d.heads}
    if not 1 <= len(lines) <= MOST_LINES or any(line.block or _makes(line, heads) for line in lines):
        raise CannotWrite("not what a person writes twice")
    if not any(_holds_weights(d, line) for line in lines):
        raise CannotWrite("no weights to share")
    return lines


def _holds_weights(d: Draft, line: Line) -> bool:
    """Whether it uses more than one number a channel that is learned."""
    for name in re.findall(r"\bm\d+_\b", line.text):
        held = getattr(d.module, name)
        parameters = held.parameters() if isinstance(held, nn.Module) else (held,)
        if any(isinstance(p, nn.Parameter) and p.numel() > p.shape[0] for p in parameters):
            return True
    return False


def _again(d: Draft, lines: Sequence[Line], first: Value, other: Value) -> dict[str, Value]:
    """The lines once more, `other` where they read `first`; name of each value -> its twin."""
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
