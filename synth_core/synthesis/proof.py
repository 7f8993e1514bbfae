"""Proof that every operator, line and input shows in the outputs: each is taken away or disturbed in turn.

Validation measures the same from outside, with the tolerance of a comparison; the margins here are wider, so
that what passes here passes there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any

import torch
from torch import nn

from synth_core.errors import CannotWrite
from synth_core.synthesis import soundness
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Line, Value, entries

NOISE = 0.5  # of a value's own deviation
LEAST_SPREAD = 2e-3  # of the largest magnitude, along each axis of an output
LEAST_SHARE = 0.015  # of an output's elements that must move
TREMOR = 1e-5  # of each input: some hundred rounding errors
MOST_GROWTH = 100.0  # times as much an output may move; a rounding error then stays within validation's 1e-4
STEPS = frozenset({"FakeQuantize", "Threshold", "Hardshrink", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"})
"""Operators that turn a rounding error into a jump."""
RELATIVE = {torch.float32: 4e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def prove(d: Draft, outputs: list[Value]) -> None:
    """Raise `CannotWrite` where a value could be left out, or replaced, without any output showing it."""
    for given in d.inputs:
        storage = given.value.tensor.untyped_storage().data_ptr()
        if any(output.tensor.untyped_storage().data_ptr() == storage for output in outputs):
            raise CannotWrite("an output is a view of an input")
    for output in outputs:
        _expect_variation(output)
        if d.dtype and output.tensor.is_floating_point() and str(output.tensor.dtype) != d.dtype:
            raise CannotWrite(
                "computed in half precision and returned in single: held to what it cannot meet"
            )
    replay = _Replay(d, outputs)
    for given in d.inputs:
        replay.expect_change(given.value, replay.noisy(given.value), 0)
    if not d.dtype and STEPS.isdisjoint(d.steps):
        replay.expect_calm(i.value for i in d.inputs if i.value.tensor.is_floating_point())
    at_work = _expect_work(d, outputs, replay)
    for i, line in enumerate(d.lines):
        for value in line.outs:
            if line.role == "glue":
                soundness.check(value)
            operand = None if line.idle else replay.operand(i, value)
            if operand is not None:
                replay.expect_change(value, operand, i + 1)
            elif value not in outputs and line.role != "merge" and value.name not in at_work:
                replay.expect_change(value, replay.noisy(value), i + 1)


def _expect_work(d: Draft, outputs: list[Value], replay: _Replay) -> set[str]:
    """An operator does nothing if what it reads, though of another shape, serves in its place.

    So does an upsampling before a mean of all pixels, or a pooling by maxima before the largest pixel. What
    serves within a motif alone (keys repeated for a head that would be broadcast) is no operator. Returns the
    names of the values that something else took the place of, and that were missed.
    """
    tensors = {value.name: value.tensor for value in d.values}
    missed = set()
    place = 0
    for lines in entries(d.lines):
        place += len(lines)
        made = [value for line in lines for value in line.outs]
        own = {value.name for value in made}
        reads = {name: tensors[name] for line in lines for name in line.reads if name not in own}
        for value in made:
            if lines[0].idle or (not lines[0].operator and lines[0].role == "merge"):
                continue
            if value.name in d.private or value in outputs:
                continue
            for operand in reads.values():
                other = operand.shape != value.tensor.shape and operand.dtype == value.tensor.dtype
                if other and replay.expect_change(value, operand, place):
                    missed.add(value.name)
    return missed


def _expect_variation(output: Value) -> None:
    """Along every axis: an output of equal rows or channels says less than its shape."""
    tensor = output.tensor.float()
    scale = float(tensor.abs().max())
    for axis, size in enumerate(tensor.shape):
        if size > 1 and float((tensor.amax(axis) - tensor.amin(axis)).max()) < LEAST_SPREAD * scale:
            raise CannotWrite(f"{output.hint} does not vary along axis {axis}")


class _Replay:
    """The lines as code, run again from somewhere with one value replaced."""

    def __init__(self, d: Draft, outputs: list[Value]) -> None:
        self._values = d.values
        self._outputs = outputs
        self._env: dict[str, Any] = dict(d.env)
        trees = [ast.parse(statement(line)) for line in d.lines]
        self._operands = [_operands(tree) for tree in trees]
        self._lines: list[tuple[CodeType, set[str], set[str]]] = [
            (compile(tree, "<forward>", "exec"), set(line.reads), {value.name for value in line.outs})
            for tree, line in zip(trees, d.lines, strict=True)
        ]
        self._generator = torch.Generator().manual_seed(0)

    def noisy(self, value: Value) -> torch.Tensor:
        """Other numbers of the same spread; an index shows in what it looks up, so it stays as it is."""
        tensor = value.tensor
        if not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=self._generator).to(tensor.dtype)
        return tensor + NOISE * tensor.float().std(correction=0).to(tensor.dtype) * noise

    def operand(self, line: int, value: Value) -> torch.Tensor | None:
        """What the line's outermost operation was given, where it could stand in for the line's value."""
        for code in self._operands[line]:
            found = eval(code, self._env)
            if (
                isinstance(found, torch.Tensor)
                and not isinstance(found, nn.Parameter)
                and found.shape == value.tensor.shape
                and found.dtype == value.tensor.dtype
            ):
                return found
        return None

    def expect_change(self, value: Value, other: torch.Tensor, first: int) -> bool:
        """False where `other` tells nothing: it is the value, or the lines from `first` on do not take it."""
        if other is value.tensor:
            return False
        try:
            pairs = self._rerun({value.name: other}, first)
        except Exception:
            return False
        if not any(_shows(before, after) for before, after in pairs):
            raise CannotWrite(f"{value.hint} does not show in any output")
        return all(before.shape == after.shape for before, after in pairs)

    def expect_calm(self, values: Iterable[Value]) -> None:
        """A change of a few rounding errors stays one: else single and double precision would disagree."""
        changes = {}
        for value in values:
            noise = torch.randn(value.shape, generator=self._generator)
            changes[value.name] = value.tensor * (1.0 + TREMOR * noise)
        for before, after in self._rerun(changes, 0):
            limit = MOST_GROWTH * TREMOR * (before.abs() + 0.5 * before.square().mean().sqrt())
            if bool(((after - before).abs() > limit).any()):
                raise CannotWrite("rounding errors grow on the way")

    def _rerun(
        self, changes: Mapping[str, torch.Tensor], first: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Before and after of each output that the changes reach, the lines run again from `first` on."""
        self._env |= changes
        touched = set(changes)
        try:
            for code, reads, outs in self._lines[first:]:
                if touched & reads:
                    exec(code, self._env)
                    touched |= outs
            return [(o.tensor, self._env[o.name]) for o in self._outputs if o.name in touched]
        finally:
            self._env |= {v.name: v.tensor for v in self._values if v.name in touched}


def _shows(before: torch.Tensor, after: torch.Tensor) -> bool:
    if before.shape != after.shape:
        return True
    tolerance = RELATIVE[before.dtype]
    a, b = after.float(), before.float()
    limit = tolerance * (b.abs() + float(b.abs().mean()))
    still = (a - b).abs() <= limit  # NaN is no such value
    return float(still.float().mean()) <= 1 - LEAST_SHARE


def _operands(tree: ast.Module) -> list[CodeType]:
    """Code for each operand of the operation that a single assignment ends with."""
    nodes: list[ast.expr] = []
    match tree.body:
        case [ast.Assign(value=ast.BinOp(left=left, right=right))]:
            nodes = [left, right]
        case [ast.Assign(value=ast.Call(func=ast.Attribute(value=base), args=args))]:
            nodes = [base, *args[:2]]
    return [compile(ast.Expression(node), "<operand>", "eval") for node in nodes]


def statement(line: Line) -> str:
    """The line as Python, placeholders and all."""
    return line.text if line.block else f"{line.targets} = {line.text}"
