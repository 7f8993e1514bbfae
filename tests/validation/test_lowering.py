"""The short way to Inductor's code, which a graph takes only where its writes can be rewritten safely."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_modules import module
from probing import compiler
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from synth_core.graph.capture import capture
from synth_core.graph.rebuild import arguments, rebuild
from synth_core.validation.prover import cxx, inductor, lowering
from synth_core.validation.prover.functional import make_functional

X = torch.linspace(-1.0, 1.0, 24).reshape(4, 6)

REWRITTEN = {
    "a fresh tensor": "y = x * 2\ny.add_(1)\nreturn y * 3",
    "several writes": "y = x + 1\ny.mul_(2)\ny.sub_(x)\ny.tanh_()\nreturn y, y + 1",
    "a read before the write": "y = x * 2\nz = y + 1\ny.add_(5)\nreturn y, z",
    "a copy": "y = x * 2\ny.copy_(x + 1)\nreturn y",
    "parts of a split": "a, b = (x * 2).split(3, 1)\na.add_(1)\nb.mul_(2)\nreturn a + b",
}
ALIASED = {
    "a view that is read afterwards": "y = x * 2\nv = y.view(-1)\ny.add_(1)\nreturn v",
    "a view that is written": "y = x * 2\ny.view(-1).add_(1)\nreturn y",
    "a row that is written": "y = x * 2\ny[0].add_(1)\nreturn y",
    "a split whose whole is read": "y = x * 2\na, b = y.split(3, 1)\na.add_(1)\nreturn y, b",
    "a view of a view": "y = x * 2\nv = y.t().reshape(6, 4)[1:]\ny.mul_(2)\nreturn v",
    "an input": "x.add_(1)\nreturn x * 2",
    "a part of an input": "x[1].mul_(2)\nreturn x + 1",
    "an expanded view": "y = x[:1] * 2\nv = y.expand(4, 6)\ny.add_(1)\nreturn v",
    "a copy of another size": "y = x * 2\ny.copy_(x[:1])\nreturn y",
    "a copy of another type": "y = x * 2\ny.copy_(x.double())\nreturn y",
    "an operand of another type": "y = x * 2\ny.add_(x.double())\nreturn y",
    "an operator without a form out of place": "y = x * 2\ny.clamp_(-0.5, 0.5)\nreturn y",
    "an operand that is itself": "y = x * 2\nv = y[:]\ny.mul_(v)\nreturn y, v",
}

PROGRAMS = REWRITTEN | ALIASED


def aten(forward: str) -> fx.GraphModule:
    """The program in ATen's operators, with the writes it makes."""
    mode = FakeTensorMode()
    with enable_python_dispatcher(), torch.no_grad():
        return make_fx(module(forward))(mode.from_tensor(X))


def results(program: Callable[..., Any]) -> list[torch.Tensor]:
    found = program(X.clone())
    return list(found) if isinstance(found, tuple | list) else [found]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_rewritten_graph_computes_the_same_without_a_write(name: str) -> None:
    forward = PROGRAMS[name]
    wanted = results(module(forward))
    graph = aten(forward)
    plain = copy.deepcopy(graph)
    rewritten = make_functional(graph)
    assert rewritten or name in ALIASED, "the long way is taken for want of the short one"
    for mine, its in zip(results(plain), wanted, strict=True):
        assert torch.equal(mine, its)
    if rewritten:
        graph.recompile()
        targets = [
            node.target for node in graph.graph.nodes if isinstance(node.target, torch._ops.OpOverload)
        ]
        assert not [target for target in targets if target._schema.is_mutable]
        for mine, its in zip(results(graph), wanted, strict=True):
            assert torch.equal(mine, its)


@pytest.mark.parametrize("name", ["a view that is read afterwards", "an input", "a copy of another size"])
def test_what_is_not_plain_is_left_as_it_is(name: str) -> None:
    assert not make_functional(aten(ALIASED[name]))


LAYERS: dict[str, nn.Module] = {
    "linear": nn.Linear(6, 3),
    "recurrent": nn.GRU(6, 5),
    "cell": nn.LSTMCell(6, 5),
    "attention": nn.TransformerEncoderLayer(6, 2, 8),
    "norm": nn.BatchNorm1d(6),
}


def generated(program: nn.Module) -> tuple[fx.GraphModule, list[torch.Tensor]]:
    found = capture(program.eval(), [X])
    return rebuild(found.record, found.tensors), list(arguments(found.record, found.tensors))


def run(graph: fx.GraphModule, given: list[torch.Tensor]) -> list[torch.Tensor]:
    """What Inductor's code for the graph computes."""
    code = inductor.generate(graph, given)
    assert cxx.build(compiler(), [code.kernels]) == [""]
    with torch.no_grad():
        return list(code.forward(*given))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_take_the_short_way_and_give_what_eager_gives(name: str) -> None:
    compiler()
    graph, given = generated(LAYERS[name])
    with torch.no_grad():
        assert lowering.lowered(copy.deepcopy(graph), given) is not None
        wanted = graph(*[tensor.clone() for tensor in given])
    for mine, its in zip(run(graph, given), wanted, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["a view that is read afterwards", "a row that is written"])
def test_what_cannot_take_the_short_way_takes_the_long_one(name: str) -> None:
    compiler()
    graph, given = generated(module(ALIASED[name]))
    with torch.no_grad():
        assert lowering.lowered(copy.deepcopy(graph), given) is None
    for mine, its in zip(run(graph, given), results(module(ALIASED[name])), strict=True):
        torch.testing.assert_close(mine, its)
