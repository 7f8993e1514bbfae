"""Runs the lines of a draft again with something changed, and compares the outputs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any

import torch
from torch import nn

from synth_core.errors import CannotWrite
from synth_core.synthesis.draft import PLACEHOLDER, Draft
from synth_core.synthesis.parts import Line, Value

NOISE = 0.5  # noise, as a multiple of the value's standard deviation
LEAST_SHARE = 0.015  # share of an output's elements that must change
TREMOR = 1e-5  # relative noise on the inputs: about a hundred rounding errors
MOST_GROWTH = 100.0  # factor by which it may grow; then rounding errors stay within validation's 1e-4
RELATIVE = {torch.float32: 4e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class Replay:
    """The lines as compiled code. They can be run again from any line, with some values replaced."""

    def __init__(self, d: Draft, outputs: list[Value]) -> None:
        self._values = d.values
        self._outputs = outputs
        self._env: dict[str, Any] = dict(d.env)
        trees = [ast.parse(line.statement) for line in d.lines]
        self._operands = [_operands(tree) for tree in trees]
        self._lines: list[tuple[CodeType, set[str], set[str]]] = [
            (compile(tree, "<forward>", "exec"), _reads(line), {value.name for value in line.outs})
            for tree, line in zip(trees, d.lines, strict=True)
        ]
        self._generator = torch.Generator().manual_seed(0)

    def noisy(self, value: Value) -> torch.Tensor:
        """The value plus noise. An integer value is returned unchanged: its lookup is tested instead."""
        tensor = value.tensor
        if not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=self._generator).to(tensor.dtype)
        return tensor + NOISE * tensor.float().std(correction=0).to(tensor.dtype) * noise

    def operand(self, line: int, value: Value) -> torch.Tensor | None:
        """An operand of the line's outermost operation with the shape and dtype of its result, or None."""
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
        """Replace a value and run the lines from `first` on. Raises `CannotWrite` if no output changes.

        Returns False if the test was not possible (`other` is the value itself, or the lines do not run with
        it), or if the shape of an output changed.
        """
        if other is value.tensor:
            return False
        try:
            pairs = self.rerun({value.name: other}, first)
        except Exception:
            return False
        if not any(shows(before, after) for before, after in pairs):
            raise CannotWrite(f"{value.hint} does not affect any output")
        return all(before.shape == after.shape for before, after in pairs)

    def expect_calm(self, values: Iterable[Value]) -> None:
        """Raise `CannotWrite` if tiny changes of the inputs grow too much.

        Otherwise single and double precision would give different outputs.
        """
        changes = {}
        for value in values:
            noise = torch.randn(value.shape, generator=self._generator)
            changes[value.name] = value.tensor * (1.0 + TREMOR * noise)
        for before, after in self.rerun(changes, 0):
            limit = MOST_GROWTH * TREMOR * (before.abs() + 0.5 * before.square().mean().sqrt())
            if bool(((after - before).abs() > limit).any()):
                raise CannotWrite("rounding errors grow too much")

    def rerun(
        self, changes: Mapping[str, torch.Tensor], first: int, attributes: Iterable[str] = ()
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Run the lines again from `first` on. Returns (before, after) for each output that changes reach.

        changes: other tensors for values. attributes: names of attributes that were changed.
        """
        self._env |= changes
        touched = {*changes, *attributes}
        try:
            for code, reads, outs in self._lines[first:]:
                if touched & reads:
                    exec(code, self._env)
                    touched |= outs
            return [(o.tensor, self._env[o.name]) for o in self._outputs if o.name in touched]
        finally:
            self._env |= {v.name: v.tensor for v in self._values if v.name in touched}


def shows(before: torch.Tensor, after: torch.Tensor, least: float = LEAST_SHARE) -> bool:
    """Whether the share `least` of an output's elements changed."""
    if before.shape != after.shape:
        return True
    unchanged = (after.float() - before.float()).abs() <= limits(before)  # False for NaN
    return float(unchanged.float().mean()) <= 1 - least


def limits(output: torch.Tensor) -> torch.Tensor:
    """The change of each element of an output up to which it counts as unchanged."""
    magnitude = output.float().abs()
    return RELATIVE[output.dtype] * (magnitude + float(magnitude.mean()))


def _reads(line: Line) -> set[str]:
    """The values and attributes that a line uses."""
    return set(PLACEHOLDER.findall(line.text)).difference(value.name for value in line.outs)


def _operands(tree: ast.Module) -> list[CodeType]:
    """Compiled code for each operand of the outermost operation. Empty if the line is not one assignment."""
    nodes: list[ast.expr] = []
    match tree.body:
        case [ast.Assign(value=ast.BinOp(left=left, right=right))]:
            nodes = [left, right]
        case [ast.Assign(value=ast.Call(func=ast.Attribute(value=base), args=args))]:
            nodes = [base, *args[:2]]
    return [compile(ast.Expression(node), "<operand>", "eval") for node in nodes]
