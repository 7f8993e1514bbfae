"""Builds a program from operators and a seed: arrange, write step by step, join, prove, render."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from synth_core.errors import CannotWrite
from synth_core.operators.catalog import find
from synth_core.operators.operator import Operator
from synth_core.records import sha256
from synth_core.synthesis import glue, proof, sharing, soundness, weights
from synth_core.synthesis.arrange import Track, arrange
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.plan import describe
from synth_core.synthesis.render import render
from synth_core.synthesis.sizes import Sizes
from synth_core.synthesis.writers import WRITERS

TRIES_A_STEP = 5
TRIES_A_PROGRAM = 24
HALF, HALF_UP_TO = 0.34, 7  # probability of half precision, for up to 7 operators: about 8% of all programs
HALF_STARTS = 2  # starts in half precision; then single precision, which happens for a third of them
HALF_TYPES = ("torch.bfloat16", "torch.bfloat16", "torch.float16")
RECURRENT = frozenset({"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"})
SOURCES = frozenset({"Embedding", "EmbeddingBag", "PositionalEmbedding"})
JOINING = 0.12  # probability, after a step, to join its value with an earlier one
SIDE_BY_SIDE = 0.12  # probability that two steps read the same value and their results are joined
AT_LAST = 0.4  # probability, at the end of a chain, to join with an earlier value


@dataclass(frozen=True)
class Written:
    """A finished program.

    plan: its steps in words. lines: statements of forward. glue: statements that only adapt a shape.
    chain: no statement joins two values.
    """

    source: str
    plan: str
    lines: int
    glue: int
    chain: bool


def build(operators: Sequence[str], seed: int) -> Written:
    """Write a program that realises all of `operators`. The same arguments give the same bytes.

    Raises `CannotWrite` if `TRIES_A_PROGRAM` attempts have failed, and `UsageError` for an unknown operator.
    """
    rows = [find(name) for name in operators]
    dtype, reason = _dtype(rows, seed), ""
    for start in range(TRIES_A_PROGRAM):
        key = sha256(f"{seed}:{start}:{','.join(row.name for row in rows)}")
        rng = random.Random(key)
        torch.default_generator.manual_seed(int(key[:15], 16))  # torch.manual_seed is slower
        try:
            return _attempt(rows, rng, 5 + start // 4, dtype if start < HALF_STARTS else "")
        except CannotWrite as error:
            reason = str(error)
    raise CannotWrite(f"no program found for {', '.join(operators)}: {reason}")


def _dtype(rows: list[Operator], seed: int) -> str:
    """Draw the dtype, once per program: "" for single precision, else a half precision.

    If each start drew its own dtype, few programs would have half precision, because its starts fail more
    often.
    """
    rng = random.Random(sha256(f"dtype:{seed}:{','.join(row.name for row in rows)}"))
    smooth = proof.STEPS.isdisjoint(row.name for row in rows)
    # On a CPU, a transposed convolution in half precision takes milliseconds, and the proof runs it often.
    # A recurrence accumulates the rounding errors of all steps.
    fit = RECURRENT.isdisjoint(row.name for row in rows) and not any(
        row.name.startswith("ConvTranspose") for row in rows
    )
    half = smooth and fit and len(rows) <= HALF_UP_TO and rng.random() < HALF
    return rng.choice(HALF_TYPES) if half else ""


def _attempt(rows: list[Operator], rng: random.Random, most_inputs: int, dtype: str) -> Written:
    d = Draft(rng=rng, sizes=Sizes(rng), most_inputs=most_inputs, dtype=dtype)
    d.sharing = sharing.draw(rng)
    x: Value | None = None
    tracks = arrange(rows, rng)
    for track in tracks:
        x = _walk(d, _enter(d, x, track), track)
    assert x is not None
    outputs = _finish(d, x)
    d.drop_unread_attributes()
    proof.prove(d, outputs, weights.settle(d, outputs))
    return Written(
        source=render(d, outputs),
        plan=describe(d, outputs),
        lines=len(d.lines),
        glue=sum(line.role == "glue" for line in d.lines),
        chain=d.chain,
    )


def _enter(d: Draft, x: Value | None, track: Track) -> Value | None:
    """The value that a track starts with: the last value, converted, or a new input."""
    if x is not None:
        mark = d.mark()
        try:
            if x.kind is track.kind or d.rng.random() < 0.6:
                return _sound(d, glue.convert(d, x, track.kind))
        except CannotWrite:
            d.undo(mark)
    if track.operators[0].name in SOURCES:
        return None
    return d.input(track.kind)


def _walk(d: Draft, x: Value | None, track: Track) -> Value | None:
    """Write a track's operators. An operator that does not fit now is tried again after the others."""
    waiting = list(track.operators)
    patience = 2 * len(waiting)
    while waiting:
        row = waiting.pop(0)
        d.bridge_to = None if waiting else track.leaves
        if x is not None and waiting and d.rng.random() < SIDE_BY_SIDE:
            beside = _side_by_side(d, x, row, waiting[0])
            if beside is not None:
                x = beside
                waiting.pop(0)
                continue
        try:
            x = _step(d, x, row)
        except CannotWrite:
            if waiting and patience:
                patience -= 1
                waiting.append(row)
                continue
            x = _elsewhere(d, x, row)
        if d.rng.random() < JOINING:
            x = _join_earlier(d, x)
        if d.sharing:
            x = sharing.share(d, x, waiting)
    return x


def _step(d: Draft, x: Value | None, row: Operator) -> Value:
    """Write one operator on x. Tries up to `TRIES_A_STEP` times, and undoes each failed try."""
    if x is None and row.name not in SOURCES:
        x = d.input(row.kinds[0])
    if x is not None and x.kind not in row.kinds and row.name not in SOURCES:
        raise CannotWrite(f"{row.name} does not take a {x.kind}")
    reason: CannotWrite | None = None
    for _ in range(TRIES_A_STEP):
        mark = d.mark()
        d.operator, d.idle = row.name, row.no_op_in_eval
        try:
            y = WRITERS[row.name](d, x, row.name)  # type: ignore[arg-type]
            if y is not x:
                soundness.check(y)
                if x is not None and not row.no_op_in_eval:
                    soundness.check_effect(x, y)
                    soundness.check_new(y, d.values)
            for head in d.heads:
                soundness.check(head)
            d.steps.append(row.name)
            made = {value.name for value in d.values[mark.values :]}
            d.private |= made - {value.name for value in (y, *d.heads, *(i.value for i in d.inputs))}
            return y
        except CannotWrite as error:
            d.undo(mark)
            if str(error) == str(reason):
                break  # the reason does not depend on random choices
            reason = error
        finally:
            d.operator, d.idle = "", False
    assert reason is not None
    raise reason


def _elsewhere(d: Draft, x: Value | None, row: Operator) -> Value:
    """Write an operator that does not fit x: on an earlier value, on x converted, or on a new input.

    Values that nothing reads then are joined at the end.
    """
    there = [v for v in reversed(d.offered) if v.kind in row.kinds][:4]
    for value in there:
        try:
            return _step(d, value, row)
        except CannotWrite:
            continue
    kinds = list(row.kinds)
    d.rng.shuffle(kinds)
    if x is not None:
        for kind in kinds:
            mark = d.mark()
            try:
                return _step(d, _sound(d, glue.convert(d, x, kind)), row)
            except CannotWrite:
                d.undo(mark)
    reason: CannotWrite | None = None
    for kind in kinds * 2:
        mark = d.mark()
        try:
            return _step(d, d.input(kind), row)
        except CannotWrite as error:
            reason = error
            d.undo(mark)
    assert reason is not None
    raise reason


def _side_by_side(d: Draft, x: Value, first: Operator, second: Operator) -> Value | None:
    """Write both operators on x and join their values. None if the values do not fit each other."""
    mark = d.mark()
    try:
        a, b = _step(d, x, first), _step(d, x, second)
        if a is x or b is x or not glue.fits(a, b):
            raise CannotWrite("nothing to join")
        return _sound(d, glue.join(d, a, b))
    except CannotWrite:
        d.undo(mark)
        return None


def _join_earlier(d: Draft, x: Value) -> Value:
    """Join x with a value of the same shape, at least two values earlier. Returns x if there is none."""
    earlier = [v for v in d.offered[:-2] if v.shape == x.shape and v.kind is x.kind and v is not x]
    if not earlier:
        return x
    mark = d.mark()
    try:
        return _sound(d, glue.join(d, x, d.rng.choice(earlier[-3:])))
    except CannotWrite:
        d.undo(mark)
        return x


def _finish(d: Draft, x: Value) -> list[Value]:
    """Join or return every value that nothing has read."""
    if d.chain and d.rng.random() < AT_LAST:
        x = _join_earlier(d, x)
    for other in [v for v in d.dangling() if v is not x and v.tensor.is_floating_point()]:
        mark = d.mark()
        try:
            if len(d.heads) < 2 and d.rng.random() < 0.3:
                raise CannotWrite("returned without a join")
            x = _sound(d, glue.join(d, x, other))
        except CannotWrite:
            d.undo(mark)
            if len(d.heads) >= 3 or not any(other in line.outs for line in d.lines):
                raise
            d.heads.append(other)
    x = sharing.tie(d, x)
    made = any(x in line.outs for line in d.lines)
    if not made and not d.heads:
        raise CannotWrite("an input would be returned unchanged")
    return [x, *d.heads] if made else d.heads


def _sound(d: Draft, value: Value) -> Value:
    soundness.check(value)
    return value
