"""Operators that do nothing: what is made of them is refused, however the shapes differ."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch

from synth_core.operators.operator import Kind
from synth_core.synthesis import proof
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.sizes import Sizes


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def draft(*steps: tuple[str, str], shape: str = "3, 8, 12, 12") -> tuple[Draft, list[Value]]:
    """Each step, an operator and its expression of `{x}`, reads the one before; no operator means glue."""
    torch.manual_seed(0)
    rng = random.Random(0)
    d = Draft(rng=rng, sizes=Sizes(rng))
    x = d.input_from(f"torch.randn({shape})", shape.split(", "), Kind.IMAGE, "x")
    for operator, text in steps:
        d.operator = operator
        x = d.emit(text.format(x=x), Kind.IMAGE, "h", role="" if operator else "glue")
        if operator:
            d.steps.append(operator)
    return d, [x]


@pytest.mark.parametrize(
    ("operator", "text", "after"),
    [
        ("Upsample", 'F.interpolate({x}, scale_factor=2, mode="nearest")', "{x}.mean(dim=(2, 3))"),
        ("MaxPool2d", "F.max_pool2d({x}, 2)", "{x}.amax(dim=(2, 3))"),
        ("AvgPool2d", "F.avg_pool2d({x}, 2)", "{x}.mean(dim=(2, 3))"),
        ("ReplicationPad2d", 'F.pad({x}, (1, 1, 1, 1), mode="replicate")', "{x}.amax(dim=(2, 3))"),
        ("WindowedPooling", "{x}.flatten(2).unfold(2, 4, 4).amax(dim=-1)", "{x}.flatten(2).amax(dim=2)"),
    ],
)
def test_what_changes_the_shape_alone_is_refused(operator: str, text: str, after: str) -> None:
    with pytest.raises(CannotWrite, match="does not affect"):
        proof.prove(*draft((operator, text), ("", after), ("Tanh", "torch.tanh({x})")))


def test_what_matters_is_kept() -> None:
    proof.prove(
        *draft(("MaxPool2d", "F.max_pool2d({x}, 2)"), ("", "{x}.mean(dim=(2, 3))"), ("Tanh", "{x}.tanh()"))
    )


def test_glue_that_leaves_nothing_is_refused() -> None:
    """Beside another value in a concatenation a block of zeros would pass."""
    d, (x,) = draft(("Max", "{x} - {x}.amax(dim=1, keepdim=True)"))
    d.operator = ""
    zeros = d.emit(f"{x}.amax(dim=1)", Kind.IMAGE, "pooled", role="glue")
    pooled = d.emit(f"{x}.mean(dim=1)", Kind.IMAGE, "pooled", role="glue")
    joined = d.emit(f"torch.cat([{zeros}, {pooled}], dim=-1)", Kind.IMAGE, "merged", role="merge")
    with pytest.raises(CannotWrite):
        proof.prove(d, [joined])


def test_a_key_that_is_repeated_for_one_head_is_no_operator_of_its_own() -> None:
    d, (x,) = draft(shape="3, 1, 12, 8")
    d.operator = "GroupedQueryAttention"
    query = d.emit(f"torch.cat([{x}, {x}.flip(2)], dim=1)", Kind.IMAGE, "q")
    key = d.emit(f"{x}.tanh()", Kind.IMAGE, "k")
    repeated = d.emit(f"{key}.repeat_interleave(2, dim=1)", Kind.IMAGE, "k")
    out = d.emit(f"F.scaled_dot_product_attention({query}, {repeated}, {repeated})", Kind.IMAGE, "out")
    d.steps.append("GroupedQueryAttention")
    d.private |= {query.name, key.name, repeated.name}
    proof.prove(d, [out])
