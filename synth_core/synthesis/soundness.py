"""What a value must be for the program to be worth keeping; stricter than validation, so that nothing
written here is dropped there.

Thresholds are relative to the value's own scale. Sources: the spike in the design notes (rows of a batch
differ by 1e-3 of the mean, deviation above 1e-4 of the largest, magnitude within 1e-3 … 1e4), each
tightened by a margin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from synth_core.errors import CannotWrite
from synth_core.synthesis.parts import Value

SMALLEST, LARGEST = 5e-3, 2e3  # of the largest magnitude
LEAST_SPREAD = 5e-3  # standard deviation over the largest magnitude
AT_AN_END, MOST_AT_AN_END = 1e-3, 0.8  # so near to the lowest or highest value; share of such elements
LEAST_DIFFERENCE = 1e-2  # between rows of a batch, over the mean magnitude
LEAST_EFFECT = 0.02  # share of the elements that an operator must change,
LEAST_CHANGE = 5e-3  # by so much of the mean magnitude


def check(value: Value) -> None:
    """Raise `CannotWrite` for a value that is not finite, out of scale, constant or blind to its row."""
    tensor = value.tensor
    if not tensor.is_floating_point():
        return
    t = tensor.float()
    if t.numel() < 2 or 0 in t.shape:
        raise CannotWrite("next to nothing is left")
    low, high = (float(bound) for bound in torch.aminmax(t))
    largest = max(abs(low), abs(high))
    if not SMALLEST < largest < LARGEST:  # NaN fails too
        raise CannotWrite(f"magnitude {largest:.1e}")
    if float(t.std()) < LEAST_SPREAD * largest:
        raise CannotWrite("hardly any spread")
    margin = AT_AN_END * (high - low)
    if float(((t - low < margin) | (high - t < margin)).float().mean()) > MOST_AT_AN_END:
        raise CannotWrite("saturated: hardly any value between the ends")
    rows = t.reshape(t.shape[0], -1)
    difference = float((rows[1:] - rows[:1]).abs().mean())
    if difference < LEAST_DIFFERENCE * float(rows.abs().mean()):
        raise CannotWrite("the rows of the batch hardly differ")


def check_effect(before: Value, after: Value) -> None:
    """Raise `CannotWrite` where an operator returned (nearly) what it was given."""
    if before.tensor is after.tensor:
        raise CannotWrite("returns its input")
    if before.shape != after.shape or before.tensor.dtype != after.tensor.dtype:
        return
    scale = before.tensor.abs().mean()
    changed = (before.tensor - after.tensor).abs() > LEAST_CHANGE * scale
    if float(changed.float().mean()) < LEAST_EFFECT:
        raise CannotWrite("changes hardly any value")


def check_new(value: Value, values: Sequence[Value]) -> None:
    """Raise `CannotWrite` where a value equals an earlier one: shuffled and shuffled back, or made twice."""
    for other in values:
        alike = other is not value and other.shape == value.shape and other.tensor.dtype == value.tensor.dtype
        if alike and torch.equal(other.tensor, value.tensor):
            raise CannotWrite("an earlier value comes again")
