"""Does it matter? Run a program again with one thing changed, and measure what comes out at the end.

Every measurement is the share of output elements that a change moved beyond the tolerance: what does not show
there could be left out by a wrong compiler, or by a lazy program, and nobody would notice. Runs inside
the sandbox; judge.py decides what the shares mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from synth_core.validation.inside.capture import UnitWalker, tensors_in
from synth_core.validation.tolerance import Tolerance, difference

Outputs = list[torch.Tensor]
Runner = Callable[[Sequence[Any], AbstractContextManager[Any]], Outputs]
"""Runs the program on these inputs, always from the same random state; forward alone within the context."""

EXHAUSTED = (MemoryError, torch.OutOfMemoryError)
"""No effect of a change: there was no memory left to see one."""

NOISE = 0.5
"""Standard deviation of a disturbance, relative to that of what it disturbs: large against any tolerance, and
small enough that an activation or a norm behind it stays in its ordinary range."""


class Meddler(UnitWalker):
    """Replaces the result of one unit, by its own operand where the shapes allow it, else by a noisy copy.

    how: "removed" or "disturbed" once it has happened; "" if it never did, because no result was a float.
    """

    def __init__(self, target: int, seed: int) -> None:
        super().__init__()
        self.how = ""
        self._target = target
        self._seed = seed
        self._operands: list[torch.Tensor] = []
        self._before: list[torch.Tensor] = []

    def on_call(self, name: str, arguments: Any, call: Callable[[], Any]) -> Any:
        if self.unit == self._target and self._open is None:
            self._remember(arguments)
        return call()

    def on_module(self, module: nn.Module, args: Any) -> None:
        if self.unit == self._target:
            self._remember(args)

    def on_unit(self, name: str, result: Any) -> Any:
        if self.unit != self._target:
            return result
        if isinstance(result, torch.Tensor):
            alike = (t for t in self._before if t.shape == result.shape and t.dtype == result.dtype)
            operand = next(alike, None)
            if operand is not None:
                self.how = "removed"
                return self._replace(result, operand)
        return self._disturb(result)

    def _remember(self, arguments: Any) -> None:
        """Keep the operands, and copies of them: the unit may work in place."""
        self._operands = [t for t in tensors_in(arguments) if not isinstance(t, nn.Parameter)]
        self._before = [t.clone() for t in self._operands]

    def _disturb(self, result: Any) -> Any:
        if isinstance(result, torch.Tensor):
            if not result.is_floating_point():
                return result
            self.how = "disturbed"
            return self._replace(result, noisy(result, self._seed))
        if isinstance(result, tuple | list):
            items = [self._disturb(item) for item in result]
            # torch.max and its like return a struct sequence, which takes one sequence; so do tuple and list
            return type(result)(items)
        return result

    def _replace(self, result: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """`value` in place of `result`; written into it where the unit worked in place on an operand."""
        if any(result is operand for operand in self._operands):
            return result.copy_(value)
        return value


def noisy(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """The floating tensor plus noise of its own scale; infinities and NaN stay as they are."""
    generator = torch.Generator(device=tensor.device).manual_seed(seed)
    values = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    finite = values.isfinite()
    known = values if bool(finite.all()) else values[finite]
    spread = float(known.std()) if known.numel() > 1 else 0.0
    if not 0.0 < spread < math.inf:  # all alike, or so large that their squares overflow
        spread = float(known.abs().max() if known.numel() else 0.0) or 1.0
    noise = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=values.dtype)
    return torch.where(finite, noise.mul_(NOISE * spread).add_(values), values).to(tensor.dtype)


@contextmanager
def unless_exhausted() -> Iterator[None]:
    """Pass over what the program raises in here, but for a lack of memory."""
    try:
        yield
    except EXHAUSTED:
        raise
    except Exception:
        return


@contextmanager
def disturbed(tensors: Sequence[torch.Tensor], seed: int) -> Iterator[None]:
    """The tensors hold noisy values meanwhile; what was nowhere negative (a variance) stays so."""
    before = [tensor.detach().clone() for tensor in tensors]
    with torch.no_grad():
        for position, (tensor, value) in enumerate(zip(tensors, before, strict=True)):
            changed = noisy(value, seed + position)
            tensor.copy_(changed.abs() if bool((value >= 0).all()) and bool((value > 0).any()) else changed)
        try:
            yield
        finally:
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


def _normal(value: Any, reach: float, seed: int) -> Any:
    """Normal numbers about zero in the place of a floating tensor; anything else as it is."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    spread = max(1.0, float(value.double().std(correction=0)))
    generator = torch.Generator(device=value.device).manual_seed(seed)
    numbers = torch.randn(value.shape, generator=generator, device=value.device)
    return (numbers * reach * spread).to(value)


def same(outputs: Outputs, others: Outputs) -> bool:
    """Whether two runs gave equal outputs, NaN being equal to NaN."""
    return len(outputs) == len(others) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in zip(outputs, others, strict=True)
    )


def moved(outputs: Outputs, baseline: Outputs, tolerances: Sequence[Tolerance]) -> float:
    """The largest share of any output's elements that differ from the baseline's; 1 where shapes do."""
    if [o.shape for o in outputs] != [b.shape for b in baseline]:
        return 1.0
    pairs = zip(outputs, baseline, tolerances, strict=True)
    return max(difference(output, reference, tolerance).share for output, reference, tolerance in pairs)


@dataclass(frozen=True)
class Comparison:
    """A program's runner, its inputs, and the outputs they gave: what every change is measured against.

    A changed program that raises where the unchanged one did not has felt the change: everything moved.
    """

    run: Runner
    inputs: Sequence[Any]
    baseline: Outputs
    tolerances: Sequence[Tolerance]
    seed: int

    def unit(self, unit: int) -> tuple[float, str]:
        """The share that moves when a unit is meddled with, and how it was ("" where it gives no float)."""
        meddler = Meddler(unit, self.seed)
        return self._moved(self.inputs, meddler), meddler.how

    def weights(self, program: nn.Module) -> float | None:
        """The share that moves when every floating parameter is disturbed; None where there is none."""
        parameters = [p for p in program.parameters() if p.is_floating_point()]
        if not parameters:
            return None
        with disturbed(parameters, self.seed):
            return self._moved(self.inputs)

    def input(self, position: int, other: Any) -> float | None:
        """The share that moves when one input takes other values; None where there are no others to give it.

        other: the same input drawn from another seed. A floating input that is a constant gets noise; an
            integer or boolean one may be an index, a length or a mask: only the program knows what is valid.
        """
        value = self.inputs[position]
        if not isinstance(value, torch.Tensor):
            return None
        if not isinstance(other, torch.Tensor) or torch.equal(value, other):
            if not value.is_floating_point():
                return None
            other = noisy(value, self.seed + position)
        changed = [other if i == position else tensor for i, tensor in enumerate(self.inputs)]
        return self._moved(changed)

    @contextmanager
    def elsewhere(self, program: nn.Module, run: Runner, reach: float) -> Iterator[Comparison]:
        """A variant of the program far from where it starts: normal inputs, other parameters and buffers.

        A ReLU does nothing to inputs that are drawn from 0..1, nor a BatchNorm before it is trained, and yet
        neither is redundant. Raises what the variant raises there.

        reach: standard deviation of the inputs, in units of their own or of 1, whichever is larger. A clamp
            at -1 shows nothing until something gets there.
        """
        inputs = [_normal(value, reach, self.seed + position) for position, value in enumerate(self.inputs)]
        state = [t for t in (*program.parameters(), *program.buffers()) if t.is_floating_point()]
        with disturbed(state, self.seed):
            yield replace(self, run=run, inputs=inputs, baseline=run(inputs, nullcontext()))

    def _moved(self, inputs: Sequence[Any], within: AbstractContextManager[Any] | None = None) -> float:
        try:
            outputs = self.run(inputs, within or nullcontext())
        except EXHAUSTED:
            raise
        except Exception:
            return 1.0
        return moved(outputs, self.baseline, self.tolerances)
