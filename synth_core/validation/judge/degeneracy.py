"""Finds programs that run, but compute nothing worth learning.

Pure functions of raw outputs and of the shares that prover/disturb.py measured. Each returns "" or one line
that says what is wrong. Thresholds are relative to the scale of the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from synth_core.operators.catalog import find
from synth_core.validation.tolerance import Tolerance, agrees, difference

MIN_VARIATION = 1e-4
"""Least (max - min) along an axis, relative to the largest |output|. An absolute bound (robust-kbench: 0.01)
wrongly rejects softmax and norms. 1e-4 is also the float32 tolerance: less variation cannot be told from a
constant."""

MIN_ALIVE = 0.01
"""Least share of elements that differ from the median. If a ReLU lets three of a thousand elements through,
its output varies, but it is almost all zeros. Unpooling by two along three axes leaves 1 in 8."""

SMALLEST = 2.0**-14
LARGEST = 65504.0
"""The largest |output| must be between the smallest normal number of half precision and the largest number.
Otherwise a port of the program to fp16 computes zeros or infinities."""


def without_magnitude(outputs: Sequence[torch.Tensor]) -> str:
    for position, output in enumerate(outputs):
        if output.is_floating_point() or output.is_complex():
            largest = float(output.abs().max())
            if not SMALLEST <= largest <= LARGEST:
                bounds = f"{SMALLEST:.2g}..{LARGEST:.5g}"
                return f"output {position} is at most {largest:.3g} in size, outside {bounds}"
    return ""


def passes_as_zero(outputs: Sequence[torch.Tensor], tolerances: Sequence[Tolerance]) -> str:
    """An answer of zeros must fail. (KernelBench issue 165: one passed an absolute tolerance.)"""
    for output, tolerance in zip(outputs, tolerances, strict=True):
        if not agrees(difference(torch.zeros_like(output), output, tolerance), tolerance):
            return ""
    return "an answer of zeros would pass the tolerance"


def without_variation(outputs: Sequence[torch.Tensor]) -> str:
    """Finds constant outputs, and axes without variation (robust-kbench; METR, February 2025).

    Ignores axes of size 1, which cannot vary.
    """
    for position, output in enumerate(outputs):
        values = torch.view_as_real(output) if output.is_complex() else output
        values = values.double()
        values = values[None] if values.dim() == 0 else values
        scale = float(values.abs().max())
        axes = [axis for axis, size in enumerate(values.shape) if size > 1]
        if axes and float(values.max() - values.min()) <= MIN_VARIATION * scale:
            return f"output {position} is constant"
        apart = (values - values.median()).abs() > MIN_VARIATION * scale
        if axes and float(apart.double().mean()) < MIN_ALIVE:
            return f"output {position}: fewer than {MIN_ALIVE:.0%} of its elements differ from the median"
        for axis in axes:
            spread = float((values.amax(axis) - values.amin(axis)).max())
            if spread <= MIN_VARIATION * scale:
                return f"output {position} does not vary along axis {axis} of shape {list(output.shape)}"
    return ""


def blind_to_inputs(shares: Mapping[str, float | None], allowed: float) -> str:
    return _blind("input", shares, allowed)


def blind_to_weights(shares: Mapping[str, float | None], allowed: float) -> str:
    return _blind("parameter", shares, allowed)


def _blind(kind: str, shares: Mapping[str, float | None], allowed: float) -> str:
    """shares: how much of the output other values of each one moved; None: there were no other values."""
    blind = [name for name, share in shares.items() if share is not None and share <= allowed]
    return f"other values of {kind} {', '.join(blind)} do not change the output" if blind else ""


def redundant_operators(units: Sequence[Sequence[Any]], allowed: float) -> str:
    """Finds operators that could be left out of the program at any inputs and weights.

    The rule comes from critics of KernelBench: delete each node, and see whether the output changes. Exempt
    are operators that do nothing in eval mode, units without a float result, and reductions that keep the
    shape, because their axes have size 1.
    """
    return _idle([(name, how, elsewhere) for name, how, _, elsewhere in units], allowed)


def idle_operators(units: Sequence[Sequence[Any]], allowed: float) -> str:
    """Finds operators without effect at the program's own inputs and weights: a ReLU of inputs from 0..1."""
    return _idle([(name, how, here) for name, how, here, _ in units], allowed)


def _idle(units: Sequence[tuple[str, str, float]], allowed: float) -> str:
    return "; ".join(
        f"{name} (operator {position}) {_CONSEQUENCE[how]}"
        for position, (name, how, share) in enumerate(units, start=1)
        if how and share <= allowed and not _is_exempt(name, how)
    )


def _is_exempt(name: str, how: str) -> bool:
    row = find(name)
    return row.no_op_in_eval or (row.section == "reduction" and how == "removed")


_CONSEQUENCE = {
    "removed": "can be removed with no change to the output",
    "disturbed": "can return noise with no change to the output",
}
