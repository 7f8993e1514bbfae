"""Rebuilding in a process that must not be harmed: what a hostile record can do, and double precision."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from graph_modules import SEQUENCE, X, captured, eager, measure, module, rebuilt

from synth_core.graph.capture import capture
from synth_core.graph.rebuild import arguments, double_by_default, doubled, laid_out, measured, rebuild
from synth_core.graph.record import BadGraph, GraphRecord, Leaf
from synth_core.graph.targets import FUNCTIONS
from synth_core.graph.vocabulary import KNOWN


def hostile(*calls: dict[str, Any], output: str = "a") -> GraphRecord:
    """A record that parses, of one input `x` of shape (4, 6)."""
    leaf = {"name": "x", "kind": "input", "path": "0", "shape": [4, 6], "stride": [6, 1], "dtype": "float32"}
    return GraphRecord.parse(
        json.dumps(
            {
                "format": "synth-graph/1",
                "torch": "2.13.0",
                "leaves": [leaf],
                "arguments": {"tuple": [{"ref": "x"}]},
                "placeholders": ["x"],
                "calls": list(calls),
                "output": {"ref": output},
            }
        )
    )


def call(target: str, *args: Any, name: str = "a", **kwargs: Any) -> dict[str, Any]:
    return {"name": name, "target": target, "args": list(args), "kwargs": kwargs}


XREF, BREF = {"ref": "x"}, {"ref": "b"}


@pytest.mark.parametrize(
    ("calls", "says"),
    [
        ([call("operator.pow", 10, 10**9)], "plain data"),
        ([call("operator.mul", "a", 10**9)], "plain data"),
        ([call("torch.Tensor.view", "text")], "something else than a value"),
        ([call("torch.Tensor.T.__get__")], "something else than a value"),
        ([call("synth.identity", 1)], "identity"),
        ([call("operator.eq", XREF, "text")], "gives a bool"),
        (
            [call("torch.Tensor.split", XREF, 2, name="b"), call("operator.mul", BREF, 10**12)],
            "of a tuple",
        ),
        ([call("operator.eq", XREF, "a", name="b"), call("operator.lshift", BREF, 10**12)], "gives a bool"),
    ],
)
def test_plain_data_is_never_computed_with(calls: list[dict[str, Any]], says: str) -> None:
    record = hostile(*calls)
    with pytest.raises(BadGraph, match=says):
        measured(record, rebuild(record, {"x": X}), [X])


@pytest.mark.parametrize("name", ["lambda", "None", "torch", "self", "__builtins__", "inf", "print"])
def test_names_of_values_are_only_names(name: str) -> None:
    """fx writes Python from them: no name may end its line, or hide what the next line needs."""
    record = hostile(
        call("torch.relu", XREF, name=name),
        call("torch.full", [2], {"float": "inf"}, name="b"),
        call("torch.nn.functional.gelu", {"ref": name}, approximate="tanh", name="c"),
        call("operator.add", {"ref": "c"}, {"ref": name}),
    )
    (got,) = rebuilt(record, {"x": X})
    assert torch.equal(got, torch.nn.functional.gelu(X.relu(), approximate="tanh") + X.relu())


def test_texts_in_arguments_are_only_texts() -> None:
    record = hostile(call("torch.nn.functional.gelu", XREF, approximate="'); import os; ('"))
    with pytest.raises(RuntimeError, match="approximate argument"):
        rebuilt(record, {"x": X})


@pytest.mark.parametrize(
    "tensors",
    [{}, {"x": X[:2]}, {"x": X.double()}, {"x": X.int()}],
    ids=["none", "another shape", "another dtype", "integers"],
)
def test_tensors_must_fit_the_leaves(tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(BadGraph, match="x"):
        rebuild(hostile(call("torch.relu", XREF)), tensors)


def test_every_target_that_torch_has_is_joined_to_it_at_import() -> None:
    assert set(FUNCTIONS) <= KNOWN
    assert len(FUNCTIONS) > 0.95 * len(KNOWN)
    assert all(callable(function) for function in FUNCTIONS.values())


def test_measuring_gives_facts_of_the_run() -> None:
    forward = "y = x.t()\ny.mul_(2)\na, b = x.topk(2)\nreturn y + 1, self.d(a)"
    record = measure(captured(forward, "self.d = nn.Dropout()"))
    calls = {call.target.rpartition(".")[2]: call for call in record.calls}
    transposed, scaled, topk = calls["t"], calls["mul_"], calls["topk"]
    (memory,) = record.memory.values()
    assert transposed.results is not None
    assert transposed.results[0] is not None
    assert (transposed.results[0].shape, transposed.results[0].memory) == ((6, 4), memory)
    assert (transposed.writes, scaled.writes) == ((), (memory,))
    assert scaled.passes == transposed.name
    assert topk.many
    assert [r and r.dtype for r in topk.results or ()] == ["float32", "int64"]
    assert calls["dropout"].passes == calls["getitem"].name


def test_measuring_gives_the_outputs() -> None:
    program = module("return self.a(x), x + 1", "self.a = nn.Linear(6, 3)")
    found = capture(program, [X])
    graph = rebuild(found.record, found.tensors)
    _, outputs = measured(found.record, graph, arguments(found.record, found.tensors))
    assert all(torch.equal(a, b) for a, b in zip(outputs, eager(program, [X]), strict=True))


def in_double(record: GraphRecord, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    wide = doubled(tensors)
    graph = rebuild(record, wide, double=True)
    with torch.no_grad(), double_by_default():
        return list(graph(*arguments(record, wide)))


@pytest.mark.parametrize(
    ("forward", "init"),
    [
        ("return self.a(x)", "self.a = nn.Linear(6, 3)"),
        ("return x.float().half().to(torch.bfloat16) * 3", ""),
        ("return x.to(dtype=torch.float32) + torch.ones(6, dtype=torch.float16)", ""),
        ("return x.type('torch.HalfTensor'), x.type(torch.float16), x.new_full((2,), 0.1)", ""),
        ("return torch.arange(6) / 7 + x, torch.tensor([0.1]) + torch.rand(6) * 0", ""),
        ("return torch.softmax(x, dim=-1, dtype=torch.float32)", ""),
        ("return (x > 0).float().mean(dim=0), x.long().float() / 3", ""),
        ("return torch.view_as_real(torch.fft.rfft(x).to(torch.complex64))", ""),
    ],
)
def test_in_double_precision_nothing_is_rounded_on_the_way(forward: str, init: str) -> None:
    """Whatever precision the text names, the reference keeps its own."""
    program = module(forward, init)
    found = capture(program, [X])
    got = in_double(found.record, found.tensors)
    assert all(tensor.dtype is torch.float64 for tensor in got)
    wanted = eager(program, [X])
    for value, exact in zip(wanted, got, strict=True):
        coarse = value.dtype in (torch.float16, torch.bfloat16) or "16" in forward
        assert torch.allclose(value.double(), exact, atol=2e-2 if coarse else 1e-6)
    assert torch.get_default_dtype() is torch.float32


def test_double_precision_differs_from_single() -> None:
    found = captured("return x.half() / 3")
    (got,) = in_double(found.record, found.tensors)
    assert torch.equal(got, X.double() / 3)


def test_devices_can_be_replaced() -> None:
    forward = "return x + torch.ones(6, device='cpu') + torch.zeros(6, device=x.device).to('cpu') + x.cpu()"
    found = captured(forward)
    graph = rebuild(found.record, found.tensors, device=torch.device("meta"))
    (got,) = graph(X.to("meta"))
    assert got.is_meta


def leaf(shape: tuple[int, ...], stride: tuple[int, ...]) -> Leaf:
    return Leaf(name="x", kind="input", path="0", shape=shape, stride=stride, dtype="float32")


@pytest.mark.parametrize("value", [X, X.t(), X[None], X.reshape(4, 3, 2).permute(2, 0, 1), X[:0], X[0, 0]])
def test_values_are_laid_out_as_they_were(value: torch.Tensor) -> None:
    placed = laid_out(leaf(tuple(value.shape), value.stride()), value.contiguous().reshape(-1))
    assert torch.equal(placed, value)
    assert placed.stride() == value.stride()


@pytest.mark.parametrize(
    ("shape", "stride"),
    [((4, 6), (1, 1)), ((4, 6), (0, 1)), ((4, 6), (12, 1)), ((4, 6), (10**15, 1)), ((3, 6), (6, 1))],
)
def test_a_layout_with_gaps_or_overlap_is_refused(shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
    """A stride of 10**15 would allocate as much."""
    with pytest.raises(BadGraph):
        laid_out(leaf(shape, stride), X.reshape(-1))


def test_a_transposed_parameter_keeps_its_strides() -> None:
    program = module("return x @ self.w", "self.w = nn.Parameter(torch.rand(5, 6).t())")
    found = capture(program, [X])
    read = {
        item.name: laid_out(item, found.tensors[item.name].contiguous().reshape(-1))
        for item in found.record.leaves
    }
    strides = [tensor.stride() for tensor in arguments(found.record, read)]
    assert dict(zip(found.record.placeholders, strides, strict=True)) == {
        "input_0": (6, 1),
        "parameter_0": (1, 6),
    }
    assert all(
        torch.equal(a, b) for a, b in zip(rebuilt(found.record, read), eager(program, [X]), strict=True)
    )


def test_parameters_ask_for_gradients_as_forward_sees_them() -> None:
    """Attention takes another path through matmul where a parameter asks for a gradient: other last bits."""
    program = module(
        "return self.a(x, x, x, need_weights=False)[0]",
        "self.a = nn.MultiheadAttention(8, 2, batch_first=True)\nself.a.out_proj.bias.requires_grad_(False)",
    )
    found = capture(program, [SEQUENCE])
    given = dict(zip(found.record.placeholders, arguments(found.record, found.tensors), strict=True))
    for leaf_ in found.record.leaves:
        assert given[leaf_.name].requires_grad == (
            leaf_.kind == "parameter" and leaf_.path != "a.out_proj.bias"
        )
