"""Runs the lines of a draft again with something changed, and compares the outputs."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping, Sequence
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from synth_core.errors import CannotWrite
from synth_core.synthesis.draft import PLACEHOLDER, Draft
from synth_core.synthesis.parts import Line, Value

NOISE = 0.5  # noise, as a multiple of the value's standard deviation
LEAST_SHARE = 0.015  # share of an output's elements that must change
CALLS = 20  # calls that half precision may make before validation's tolerance exceeds RELATIVE
SURE = 3.0  # a predicted change of more tolerances than this is certain
TREMOR = 1e-5  # relative noise on the inputs: about a hundred rounding errors
MOST_GROWTH = 100.0  # factor by which it may grow; then rounding errors stay within validation's 1e-4
RELATIVE = {torch.float32: 4e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts calls of torch."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


class Replay:
    """The lines as compiled code. They can be run again from any line, with some values replaced."""

    def __init__(self, d: Draft, outputs: list[Value]) -> None:
        self._values = d.values
        self._outputs = outputs
        self._given = [item.value for item in d.inputs]
        self._env: dict[str, Any] = dict(d.env)
        trees = [ast.parse(line.statement) for line in d.lines]
        self._operands = [_operands(tree) for tree in trees]
        self._lines: list[tuple[CodeType, set[str], set[str]]] = [
            (compile(tree, "<forward>", "exec"), _reads(line), {value.name for value in line.outs})
            for tree, line in zip(trees, d.lines, strict=True)
        ]
        self._generator = torch.Generator().manual_seed(0)
        self._certain: set[str] = set()
        self.roundings = self._count() / CALLS if d.dtype else 1.0

    def _count(self) -> int:
        """The calls that one run makes, and at least `CALLS`."""
        env = dict(self._env)
        with _Counter() as counter:  # type: ignore[no-untyped-call]
            for code, _, _ in self._lines:
                exec(code, env)
        return max(int(counter.calls), CALLS)

    def predict(self, parameters: Sequence[nn.Parameter]) -> list[bool]:
        """For each parameter, whether noise on it is certain to change the outputs. Values are noted as well.

        One backward pass gives the slopes of a random sum of the outputs, which estimate the size of the
        Jacobian. What is not certain must be measured.
        """
        given = [value for value in self._values if value.tensor.is_floating_point()]
        try:
            with torch.enable_grad():
                env = self._env_with_slopes()
                total = self._random_sum(env)
                reached = [value for value in given if env[value.name].requires_grad]
                tensors = [*parameters, *(env[value.name] for value in reached)]
                slopes = torch.autograd.grad(total, tensors, allow_unused=True)
        except RuntimeError:  # an operator without a gradient
            return [False] * len(parameters)
        certain = [
            slope is not None and NOISE * spread(tensor) * float(slope.float().norm()) > SURE * self.roundings
            for tensor, slope in zip(tensors, slopes, strict=True)
        ]
        count = len(parameters)
        self._certain = {value.name for value, sure in zip(reached, certain[count:], strict=True) if sure}
        return certain[:count]

    def _env_with_slopes(self) -> dict[str, Any]:
        """All values, computed anew from inputs that have a gradient."""
        env = dict(self._env)
        for value in self._given:
            if value.tensor.is_floating_point():
                env[value.name] = value.tensor.detach().requires_grad_()
        for code, _, _ in self._lines:
            exec(code, env)
        return env

    def _random_sum(self, env: Mapping[str, Any]) -> torch.Tensor:
        """A sum of all elements of the outputs with random weights, in tolerances."""
        total = torch.zeros(())
        for output in self._outputs:
            weights = torch.randn(output.shape, generator=self._generator) / limits(output.tensor)
            total = total + (env[output.name].float() * weights).sum() / math.sqrt(weights.numel())
        return total

    def expect_effect(self, value: Value, first: int) -> None:
        """Raise `CannotWrite` if noise on the value changes no output. `first`: the first line after it."""
        if value.name not in self._certain:
            self.expect_change(value, self.noisy(value), first)

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


def shows(before: torch.Tensor, after: torch.Tensor, least: float = LEAST_SHARE, times: float = 1.0) -> bool:
    """Whether the share `least` of an output's elements changed by more than so many times the tolerance."""
    if before.shape != after.shape:
        return True
    unchanged = (after.float() - before.float()).abs() <= times * limits(before)  # False for NaN
    return float(unchanged.float().mean()) <= 1 - least


def limits(output: torch.Tensor) -> torch.Tensor:
    """The change of each element of an output up to which it counts as unchanged."""
    magnitude = output.float().abs()
    return RELATIVE[output.dtype] * (magnitude + float(magnitude.mean()))


def spread(tensor: torch.Tensor) -> float:
    """The standard deviation; for equal numbers their magnitude, or 1 for zeros."""
    values = tensor.detach().float()
    deviation = float(values.std()) if values.numel() > 1 else 0.0
    return deviation or float(values.abs().max()) or 1.0


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
