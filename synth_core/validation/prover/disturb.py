"""What matters to the output: run a graph again with one thing changed, and compare the outputs.

Each measurement is the share of output elements that a change moved beyond the tolerance. If no element
moves, a wrong compiler could leave that part out and nobody would notice. judge/degeneracy.py decides what
the shares mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from synth_core.graph.encode import tensors_in
from synth_core.graph.nodes import Unit
from synth_core.validation.prover.running import Execute, Graph, Outputs
from synth_core.validation.tolerance import Tolerance, difference

EXHAUSTED = (MemoryError, torch.OutOfMemoryError)
"""These are not an effect of a change: there was no memory to measure one."""

NOISE = 0.5
"""Standard deviation of the noise, relative to that of the tensor. It is large compared with any tolerance,
and small enough for a later activation or norm to stay in its usual range."""


class Meddler(fx.Interpreter):
    """Runs a graph, but replaces the result of one operator by its operand, or by a noisy copy.

    how: "removed" or "disturbed", when it has happened; "" if no result was a float.
    """

    def __init__(self, graph: fx.GraphModule, unit: Unit, seed: int) -> None:
        super().__init__(graph)
        self.how = ""
        self._seed = seed
        named = {node.meta["value"]: node for node in graph.graph.nodes if "value" in node.meta}
        self._unit = [named[name] for name in unit.calls]
        self._reads = [named[name] for name in unit.operands]
        self._results = [named[name] for name in unit.results]
        self._operands: list[torch.Tensor] | None = None
        self._before: list[torch.Tensor] = []

    def run_node(self, n: fx.Node) -> Any:
        if self._operands is None and n is self._unit[0]:
            known = [self.env[node] for node in self._reads if node in self.env]
            self._operands = list(tensors_in(known))
            self._before = [tensor.clone() for tensor in self._operands]  # the operator may work in place
        value = super().run_node(n)
        if n is not self._unit[-1]:
            return value
        self.env[n] = value
        for node in self._results:
            self.env[node] = self._meddled(self.env[node], alone=len(self._results) == 1)
        return self.env[n]

    def _meddled(self, result: Any, alone: bool) -> Any:
        if alone and isinstance(result, torch.Tensor):
            alike = (t for t in self._before if t.shape == result.shape and t.dtype == result.dtype)
            operand = next(alike, None)
            if operand is not None:
                self.how = "removed"
                return self._replace(result, operand)
        return self._disturbed(result)

    def _disturbed(self, result: Any) -> Any:
        if isinstance(result, torch.Tensor):
            if not result.is_floating_point():
                return result
            self.how = "disturbed"
            return self._replace(result, noisy(result, self._seed))
        if isinstance(result, tuple | list):
            # torch.max returns a struct sequence; its class takes one sequence, as tuple and list do
            return type(result)([self._disturbed(item) for item in result])
        return result

    def _replace(self, result: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """`value` instead of `result`. If the operator works in place, the operand gets `value`."""
        if any(result is operand for operand in self._operands or ()):
            return result.copy_(value)
        return value


def noisy(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """The tensor plus noise of its own scale. Infinities and NaN stay as they are."""
    generator = torch.Generator(device=tensor.device).manual_seed(seed)
    values = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    finite = values.isfinite()
    known = values if bool(finite.all()) else values[finite]
    spread = float(known.std()) if known.numel() > 1 else 0.0
    if not 0.0 < spread < math.inf:  # all equal, or so large that their squares overflow
        spread = float(known.abs().max() if known.numel() else 0.0) or 1.0
    noise = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=values.dtype)
    return torch.where(finite, noise.mul_(NOISE * spread).add_(values), values).to(tensor.dtype)


def changed(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """A noisy copy. A tensor without negative values, such as a variance, gets none."""
    value = noisy(tensor, seed)
    return value.abs() if bool((tensor >= 0).all()) and bool((tensor > 0).any()) else value


def normal(tensor: torch.Tensor, reach: float, seed: int) -> torch.Tensor:
    """Normal numbers around zero instead of a floating tensor; any other tensor as it is."""
    if not tensor.is_floating_point():
        return tensor
    spread = max(1.0, float(tensor.double().std(correction=0)))
    generator = torch.Generator(device=tensor.device).manual_seed(seed)
    numbers = torch.randn(tensor.shape, generator=generator, device=tensor.device)
    return (numbers * reach * spread).to(tensor)


def same(outputs: Outputs, others: Outputs) -> bool:
    """Whether two runs gave equal outputs. NaN is equal to NaN."""
    return len(outputs) == len(others) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in zip(outputs, others, strict=True)
    )


def moved(outputs: Outputs, baseline: Outputs, tolerances: Sequence[Tolerance]) -> float:
    """The largest share of elements of an output that differ from the baseline; 1 if shapes differ."""
    if [o.shape for o in outputs] != [b.shape for b in baseline]:
        return 1.0
    pairs = zip(outputs, baseline, tolerances, strict=True)
    return max(difference(output, reference, tolerance).share for output, reference, tolerance in pairs)


@dataclass(frozen=True)
class Comparison:
    """A graph, the values of its leaves, and its outputs. Every change is compared with these outputs.

    If only the changed graph raises, the change matters: everything moved.
    """

    graph: Graph
    values: Mapping[str, torch.Tensor]
    baseline: Outputs
    tolerances: Sequence[Tolerance]
    seed: int
    state: frozenset[str]
    """Names of the parameters and buffers."""

    def operator(self, unit: Unit) -> tuple[float, str]:
        """The share that moves when an operator is changed, and how it was ("": it gives no float)."""
        meddler = Meddler(self.graph.module, unit, self.seed)
        return self._moved(self.values, meddler.run), meddler.how

    def parameter(self, name: str, position: int) -> float | None:
        """The share that moves when one parameter is disturbed; None if it is not a float."""
        value = self.values[name]
        if not value.is_floating_point():
            return None
        return self._moved({**self.values, name: changed(value, self.seed + position)})

    def input(self, name: str, position: int, other: torch.Tensor | None) -> float | None:
        """The share that moves when one input takes other values; None if there are no other values.

        other: the same input under another seed. A floating input that does not change with the seed gets
            noise. An integer or boolean one does not, because it may be an index, a length or a mask.
        """
        value = self.values[name]
        if other is None or torch.equal(value, other):
            if not value.is_floating_point():
                return None
            other = noisy(value, self.seed + position)
        return self._moved({**self.values, name: other})

    def elsewhere(self, graph: Graph, inputs: Sequence[str], reach: float) -> Comparison:
        """The comparison at other values: normal inputs, other parameters and buffers.

        A ReLU does nothing to inputs from 0..1, and a BatchNorm does nothing before training. Yet neither is
        redundant. Raises what the graph raises at these values.

        reach: standard deviation of the new inputs, as a multiple of their own or of 1, whichever is larger.
            A clamp at -1 has no effect until a value gets there.
        """
        values = dict(self.values)
        for position, name in enumerate(inputs):
            values[name] = normal(values[name], reach, self.seed + position)
        for position, name in enumerate(sorted(self.state)):
            if values[name].is_floating_point():
                values[name] = changed(values[name], self.seed + position)
        return replace(self, graph=graph, values=values, baseline=graph(values))

    def _moved(self, values: Mapping[str, torch.Tensor], execute: Execute | None = None) -> float:
        try:
            outputs = self.graph(values, execute)
        except EXHAUSTED:
            raise
        except Exception:
            return 1.0
        return moved(outputs, self.baseline, self.tolerances)
