"""Checks on the values of a program that is being written.

They are stricter than validation, so that validation does not drop what is written here. Thresholds are
relative to the value's own scale. They come from an experiment during the design (rows of a batch differ by
1e-3 of the mean, standard deviation above 1e-4 of the largest magnitude, magnitude within 1e-3 … 1e4). Each
has been tightened by a margin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from synth_core.synthesis.draft import CannotWrite
from synth_core.synthesis.parts import Value

SMALLEST, LARGEST = 5e-3, 2e3  # bounds of the largest magnitude
LEAST_SPREAD = 5e-3  # standard deviation, as a share of the largest magnitude
AT_AN_END = 1e-3  # an element this near to the minimum or maximum, as a share of the range, is saturated
MOST_AT_AN_END = 0.8  # share of saturated elements, at most
LEAST_DIFFERENCE = 1e-2  # mean difference between rows of a batch, as a share of the mean magnitude
LEAST_EFFECT = 0.02  # share of elements that an operator must change …
LEAST_CHANGE = 5e-3  # … by more than this share of the mean magnitude


def check(value: Value) -> None:
    """Raise `CannotWrite` for a value that is not finite, too large or small, or almost constant.

    Also if its rows hardly differ, which means that it does not depend on the inputs of its row.
    """
    tensor = value.tensor
    if not tensor.is_floating_point():
        return
    t = tensor.float()
    if t.numel() < 2 or 0 in t.shape:
        raise CannotWrite("fewer than two elements")
    low, high = (float(bound) for bound in torch.aminmax(t))
    largest = max(abs(low), abs(high))
    if not SMALLEST < largest < LARGEST:  # NaN fails too
        raise CannotWrite(f"magnitude {largest:.1e}")
    if float(t.std()) < LEAST_SPREAD * largest:
        raise CannotWrite("hardly any spread")
    margin = AT_AN_END * (high - low)
    if float(((t - low < margin) | (high - t < margin)).float().mean()) > MOST_AT_AN_END:
        raise CannotWrite("saturated: almost all values are near the minimum or maximum")
    rows = t.reshape(t.shape[0], -1)
    difference = float((rows[1:] - rows[:1]).abs().mean())
    if difference < LEAST_DIFFERENCE * float(rows.abs().mean()):
        raise CannotWrite("the rows of the batch hardly differ")


def check_effect(before: Value, after: Value) -> None:
    """Raise `CannotWrite` if an operator returns its input, or changes hardly any element of it."""
    if before.tensor is after.tensor:
        raise CannotWrite("returns its input")
    if before.shape != after.shape or before.tensor.dtype != after.tensor.dtype:
        return
    scale = before.tensor.abs().mean()
    changed = (before.tensor - after.tensor).abs() > LEAST_CHANGE * scale
    if float(changed.float().mean()) < LEAST_EFFECT:
        raise CannotWrite("changes hardly any value")


def check_new(value: Value, values: Sequence[Value]) -> None:
    """Raise `CannotWrite` if a value equals an earlier one, for example after two inverse shuffles."""
    for other in values:
        alike = other is not value and other.shape == value.shape and other.tensor.dtype == value.tensor.dtype
        if alike and torch.equal(other.tensor, value.tensor):
            raise CannotWrite("the value equals an earlier one")
