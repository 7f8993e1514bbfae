"""What is written for a size that follows from others: its names, so that a program takes other sizes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch

from synth_core.operators.operator import Kind
from synth_core.program.constants import constants_of
from synth_core.synthesis import extents
from synth_core.synthesis.build import build
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.enlarge import enlarge
from synth_core.synthesis.render import render
from synth_core.synthesis.sizes import Sizes
from synth_core.synthesis.writers.dense import project


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def draft() -> Draft:
    rng = random.Random(0)
    return Draft(rng=rng, sizes=Sizes(rng))


def left_small(source: str) -> list[str]:
    small, large = constants_of(source), enlarge(source, sets=0, seed=0).constants
    return [name for name, value in small.items() if large[name] <= value]


def test_a_score_has_as_many_columns_as_steps_and_a_concat_the_sum() -> None:
    d = draft()
    d.operator = "Matmul"
    x = d.input(Kind.SEQUENCE)
    scores = d.emit(f"{x} @ {x}.transpose(-2, -1)", Kind.SEQUENCE, "scores")
    assert extents.texts(d, scores) == ["batch_size", "seq_len", "seq_len"]
    joined = d.emit(f"torch.cat([{x}, {scores}], dim=-1)", Kind.SEQUENCE, "merged", role="merge")
    width = extents.channels(d, x)
    assert extents.channels(d, joined) == f"{width} + seq_len"
    out = d.emit(project(d, joined, x, "proj"), Kind.SEQUENCE, "h")
    d.steps = ["Matmul"]
    source = render(d, [out])
    assert f"nn.Linear({width} + seq_len, {width})" in source
    assert left_small(source) == []


def test_a_layer_s_own_width_wins_over_an_equal_extent() -> None:
    d = draft()
    x = d.input(Kind.SEQUENCE)
    scores = d.emit(f"{x} @ {x}.transpose(-2, -1)", Kind.SEQUENCE, "scores")
    steps = scores.channels
    out = d.emit(project(d, scores, steps, "fc"), Kind.SEQUENCE, "h")
    assert extents.texts(d, out) == ["batch_size", "seq_len", "hidden_dim"]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("{x}.flatten(1)", Kind.VECTOR, ["batch_size", "in_channels * height * width"]),
        ("{x}.flatten(2)", Kind.SIGNAL, ["batch_size", "in_channels", "height * width"]),
        ("{x}.mean(dim=(2, 3))", Kind.VECTOR, ["batch_size", "in_channels"]),
        ("torch.cat([{x}, {x}], dim=1)", Kind.IMAGE, ["batch_size", "2 * in_channels", "height", "width"]),
        (
            "F.max_pool2d({x}, 2)",
            Kind.IMAGE,
            ["batch_size", "in_channels", "height // 2", "width // 2"],
        ),
        (
            "F.unfold({x}, kernel_size=2, stride=2)",
            Kind.SIGNAL,
            ["batch_size", "4 * in_channels", "(height // 2) * (width // 2)"],
        ),
        ("F.adaptive_avg_pool2d({x}, 4)", Kind.IMAGE, ["batch_size", "in_channels", "4", "4"]),
    ],
)
def test_what_follows_from_an_image(text: str, kind: Kind, expected: list[str]) -> None:
    d = draft()
    axes = ("batch_size", "in_channels", "height", "width")
    for name, size in zip(axes, (3, 12, 16, 20), strict=True):
        d.sizes.constant(name, size, d.env)
    x = d.input_from(f"torch.randn({', '.join(axes)})", axes, Kind.IMAGE, "x")
    assert extents.texts(d, d.emit(text.format(x=x), kind, "h")) == expected


@pytest.mark.parametrize(
    ("text", "twice", "half"),
    [
        ("d_model", "2 * d_model", "d_model // 2"),
        ("2 * d_model", "4 * d_model", "d_model"),
        ("d_model // 4", "d_model // 2", "d_model // 8"),
        ("a + b", "2 * (a + b)", "(a + b) // 2"),
        ("a * b", "2 * a * b", "a * b // 2"),
        ("24", "48", "12"),
    ],
)
def test_multiples_and_parts_are_in_lowest_terms(text: str, twice: str, half: str) -> None:
    assert extents.multiple(text, 2) == twice
    assert extents.part(text, 2) == half


@pytest.mark.parametrize(
    "operator", ["CausalAttention", "GramMatrix", "EinsumContraction", "RotaryEmbedding", "Transformer"]
)
def test_attention_and_its_like_take_gpu_sizes(operator: str) -> None:
    for seed in range(3):
        assert left_small(build([operator, "Linear"], seed).source) == []


TIED = """
import torch
import torch.nn as nn


class Tied(nn.Module):
    def __init__(self, steps, double):
        super().__init__()
        self.fc1 = nn.Linear(steps, 4)
        self.fc2 = nn.Linear(double, 4)

    def forward(self, x):
        x = x @ x.transpose(1, 2)
        return self.fc1(x) + self.fc2(torch.cat([x, x], dim=-1))


batch_size = 2
seq_len = 6
steps = 6
double = 12
in_features = 5


def get_inputs():
    return [torch.randn(batch_size, seq_len, in_features)]


def get_init_inputs():
    return [[steps, double], {}]
"""


def test_constants_that_are_tied_grow_together() -> None:
    found = enlarge(TIED, sets=0, seed=0).constants
    assert found == {"batch_size": 64, "seq_len": 512, "steps": 512, "double": 1024, "in_features": 40}


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["2 * width", "width"], "3 * width"),
        (["width", "depth", "width"], "2 * width + depth"),
        (["width + 4", "8"], "width + 12"),
        (["width // 2", "width"], "width // 2 + width"),
        (["2 * (a + b)", "a"], "2 * (a + b) + a"),
        (["6", "6"], "12"),
    ],
)
def test_a_sum_has_like_terms_together(parts: list[str], text: str) -> None:
    assert extents.total(parts) == text
    names = {"width": 10, "depth": 7, "a": 3, "b": 5}
    assert eval(text, names) == sum(eval(extent, names) for extent in parts)
