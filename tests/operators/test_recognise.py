"""Operators and motifs read from small graphs written by hand."""

from __future__ import annotations

import pytest

from synth_core.operators.patterns import parse
from synth_core.operators.recognise import recognise
from synth_core.records import Node

SHAPE = (4, 8)


def graph(*rows: tuple[str, str, str, str]) -> list[Node]:
    """Rows of (name, target, inputs, operator); an empty target is an input, `p…` a parameter."""
    return [
        Node(
            name=name,
            kind="call" if target else "parameter" if name.startswith("p") else "input",
            target=f"torch.{target}" if target else "",
            inputs=tuple(inputs.split()),
            shape=SHAPE,
            operator=operator,
        )
        for name, target, inputs, operator in rows
    ]


def operators(*rows: tuple[str, str, str, str]) -> list[str]:
    return [node.operator for node in recognise(graph(*rows)) if node.operator]


X, Y, P = ("x", "", "", ""), ("y", "", "", ""), ("p", "", "", "")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([X, Y, ("a", "add", "x y", "Add")], ["Add"]),
        ([X, P, ("a", "add", "x p", "Add")], ["BiasAdd"]),
        ([X, ("r", "relu", "x", "ReLU"), ("a", "add", "r x", "Add")], ["ReLU", "ResidualAdd"]),
        ([X, ("m", "mul", "x", "Multiply")], ["Scale"]),
        ([X, P, ("m", "mul", "p x", "Multiply")], ["Scale"]),
        ([X, Y, ("m", "mul", "x y", "Multiply")], ["Multiply"]),
        ([X, Y, ("m", "max", "x y", "Max")], []),
    ],
)
def test_what_a_sum_or_product_is(rows: list[tuple[str, str, str, str]], expected: list[str]) -> None:
    assert operators(*rows) == expected


def swiglu(second_reads: str) -> list[str]:
    return operators(
        X,
        Y,
        ("a", "nn.functional.linear", "x", "Linear"),
        ("g", "nn.functional.silu", "a", "SiLU"),
        ("t", "Tensor.transpose", "x", ""),
        ("b", "nn.functional.linear", second_reads, "Linear"),
        ("m", "mul", "b g", "Multiply"),
    )


def test_a_motif_takes_the_place_of_its_parts_whatever_the_order_of_a_product() -> None:
    assert swiglu("x") == ["SwiGLU"]


def test_views_are_looked_through() -> None:
    assert swiglu("t") == ["SwiGLU"]


def test_a_variable_stands_for_one_value() -> None:
    assert swiglu("y") == ["Linear", "SiLU", "Linear", "Multiply"]


@pytest.mark.parametrize("text", ["Add(x", "Add(x) y", "Conv2d[round](x)", "Add(x)!"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse(text)
