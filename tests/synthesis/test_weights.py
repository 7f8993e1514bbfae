"""Parameters without effect are left out of a program, and every one that stays moves an output."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from synth_core.errors import CannotWrite
from synth_core.operators.operator import Group, Kind
from synth_core.sampling import coherent
from synth_core.synthesis import weights
from synth_core.synthesis.build import build
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.sizes import Sizes
from synth_core.validation.prover.disturb import changed
from synth_core.validation.tolerance import difference, tolerance_for

COUNTS = {Group.CORE: 2, Group.COMPOUND: 1, Group.SUPPORTING: 4}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def without_effect(source: str) -> list[str]:
    """The parameters whose disturbance moves no element of an output beyond validation's tolerance."""
    env: dict[str, Any] = {}
    exec(source, env)
    (program,) = (v for v in env.values() if isinstance(v, type) and issubclass(v, torch.nn.Module))
    args, kwargs = env["get_init_inputs"]()
    torch.manual_seed(1)
    module, inputs = program(*args, **kwargs).eval(), env["get_inputs"]()

    def outputs() -> list[torch.Tensor]:
        result = module(*inputs)
        return list(result) if isinstance(result, tuple) else [result]

    baseline, idle = outputs(), []
    for position, (name, parameter) in enumerate(module.named_parameters()):
        kept = parameter.data
        parameter.data = changed(kept, position)
        pairs = zip(outputs(), baseline, strict=True)
        if not any(difference(a, b, tolerance_for(b.dtype)).share for a, b in pairs):
            idle.append(name)
        parameter.data = kept
    return idle


@pytest.mark.parametrize("seed", range(24))
def test_every_parameter_moves_an_output(seed: int) -> None:
    written = build(coherent.draw(random.Random(seed), COUNTS), seed)
    assert without_effect(written.source) == []


@pytest.mark.parametrize(
    "operators",
    [
        ("Conv2d", "InstanceNorm2d"),
        ("ConvTranspose2d", "BatchNorm2d"),
        ("Linear", "BatchNorm1d"),
        ("CausalAttention", "Tanh"),
        ("GroupedQueryAttention", "Tanh"),
        ("LinearAttention", "Tanh"),
        ("AttentionPooling", "Tanh"),
    ],
)
def test_what_a_norm_or_a_softmax_cancels_is_left_out(operators: tuple[str, ...]) -> None:
    for seed in range(3):
        assert without_effect(build(operators, seed).source) == []


def draft(layer: str, after: str) -> tuple[Draft, list[Value]]:
    torch.manual_seed(0)
    rng = random.Random(0)
    d = Draft(rng=rng, sizes=Sizes(rng))
    x = d.input_from("torch.randn(3, 8, 12, 12)", ["3", "8", "12", "12"], Kind.IMAGE, "x")
    h = d.emit(f"{d.attribute('layer', layer)}({x})", Kind.IMAGE, "h")
    return d, [d.emit(after.format(h), Kind.IMAGE, "h")]


@pytest.mark.parametrize(
    ("layer", "written"),
    [
        ("nn.Conv2d(8, 6, 3)", "nn.Conv2d(8, 6, 3, bias=False)"),
        ("nn.BatchNorm2d(8)", "nn.BatchNorm2d(8, affine=False)"),
        ("nn.InstanceNorm2d(8, affine=True)", "nn.InstanceNorm2d(8)"),
    ],
)
def test_the_layer_is_written_without_them(layer: str, written: str) -> None:
    d, outputs = draft(layer, "F.instance_norm({})")
    before = outputs[0].tensor
    weights.settle(d, outputs)
    assert [attribute.text for attribute in d.attributes] == [written]
    assert torch.allclose(outputs[0].tensor, before, atol=1e-3)
    assert list(eval(written, d.env).state_dict()) == list(d.module.__dict__["m2_"].state_dict())


def test_what_matters_stays() -> None:
    d, outputs = draft("nn.Conv2d(8, 6, 3)", "torch.tanh({})")
    weights.settle(d, outputs)
    assert [attribute.text for attribute in d.attributes] == ["nn.Conv2d(8, 6, 3)"]


def test_what_no_argument_leaves_out_is_refused() -> None:
    d, outputs = draft("nn.Conv2d(8, 6, 3)", "{} * 0.0")
    with pytest.raises(CannotWrite, match="has no effect"):
        weights.settle(d, outputs)
