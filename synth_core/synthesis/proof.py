"""Proves that every operator, line and input affects the outputs: each is removed or disturbed in turn.

Validation measures the same from outside, with the tolerances of a comparison. The margins here are larger,
so a program that passes here passes there.
"""

from __future__ import annotations

from synth_core.errors import CannotWrite
from synth_core.synthesis import soundness
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Value, entries
from synth_core.synthesis.replay import Replay

LEAST_SPREAD = 2e-3  # variation along each axis of an output, as a share of its largest magnitude
STEPS = frozenset({"FakeQuantize", "Threshold", "Hardshrink", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"})
"""Step functions: a rounding error in their input may cause a jump in their output."""


def prove(d: Draft, outputs: list[Value], replay: Replay | None = None) -> None:
    """Raise `CannotWrite` if some value can be removed or replaced without a change in any output."""
    for given in d.inputs:
        storage = given.value.tensor.untyped_storage().data_ptr()
        if any(output.tensor.untyped_storage().data_ptr() == storage for output in outputs):
            raise CannotWrite("an output is a view of an input")
    for output in outputs:
        _expect_variation(output)
        if d.dtype and output.tensor.is_floating_point() and str(output.tensor.dtype) != d.dtype:
            raise CannotWrite(
                "computed in half precision but returned in single, whose tolerance it cannot meet"
            )
    replay = replay or Replay(d, outputs)
    for given in d.inputs:
        replay.expect_effect(given.value, 0)
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
                replay.expect_effect(value, i + 1)


def _expect_work(d: Draft, outputs: list[Value], replay: Replay) -> set[str]:
    """Raise `CannotWrite` for an operator whose operand, though of another shape, can replace its result.

    Examples are an upsampling before the mean of all pixels, and a max-pooling before the largest pixel.
    Values inside a motif are not tested (for example repeated keys that would be broadcast anyway).
    Returns the names of the values whose replacement changed an output.
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
    """Raise `CannotWrite` if an output is constant along an axis, for example if all channels are equal."""
    tensor = output.tensor.float()
    scale = float(tensor.abs().max())
    for axis, size in enumerate(tensor.shape):
        if size > 1 and float((tensor.amax(axis) - tensor.amin(axis)).max()) < LEAST_SPREAD * scale:
            raise CannotWrite(f"{output.hint} does not vary along axis {axis}")
