"""Nodes and operators of a record are those that the eager recorder gives, and forged claims gain nothing."""

from __future__ import annotations

import random

import pytest
import torch
from graph_modules import SEQUENCE, X, captured, measure, module
from recorder import Recorder

from synth_core.filtering.fingerprints import graph_hash
from synth_core.graph.capture import capture
from synth_core.graph.encode import tensors_in
from synth_core.graph.nodes import nodes_of, units_of
from synth_core.graph.record import BadGraph, GraphRecord, Layer, Result
from synth_core.operators.catalog import CATALOG
from synth_core.operators.operator import Group, Operator
from synth_core.records import Graph
from synth_core.sampling import coherent
from synth_core.synthesis.build import build
from synth_core.validation.inside.loading import Loaded, load

COUNTS = {Group.CORE: 2, Group.COMPOUND: 1, Group.SUPPORTING: 4}


def operators(record: GraphRecord) -> list[str]:
    return [unit.operator for unit in units_of(record)]


@pytest.mark.parametrize(
    ("forward", "init", "wanted"),
    [
        ("return self.a(x)", "self.a = nn.ReLU()", ["ReLU"]),
        ("return torch.relu(x)", "", ["ReLU"]),
        ("return F.relu(x)", "", ["ReLU"]),
        ("return x.relu()", "", ["ReLU"]),
        ("y = x * 1.5\ny.relu_()\nreturn y", "", ["Scale", "ReLU"]),
        ("return self.a(self.b(x))", "self.a = nn.Tanh()\nself.b = nn.Linear(8, 3)", ["Linear", "Tanh"]),
        ("return self.a(self.a(x))", "self.a = nn.Linear(8, 8)", ["Linear", "Linear"]),
        ("return self.a.forward(x)", "self.a = nn.Linear(8, 3)", ["Linear"]),
        ("return self.a(x)[0]", "self.a = nn.LSTM(8, 5)", ["LSTM"]),
        ("return self.a(x)", "self.a = nn.TransformerEncoderLayer(8, 2, 16)", ["TransformerEncoderLayer"]),
        ("return self.a(x, x, x)[0]", "self.a = nn.MultiheadAttention(8, 2)", ["MultiheadAttention"]),
        ("return torch.tanh(self.a(x))", "self.a = nn.Identity()", ["Identity", "Tanh"]),
        ("return torch.tanh(self.a(x))", "self.a = nn.Dropout(0.5)", ["Dropout", "Tanh"]),
        (
            "h = self.a(x)\nreturn h + torch.tanh(x)",
            "self.a = nn.Identity()",
            ["Identity", "Tanh", "ResidualAdd"],
        ),
        ("return torch.tanh(x) + x", "", ["Tanh", "ResidualAdd"]),
        ("return x + self.b", "self.b = nn.Parameter(torch.randn(8))", ["BiasAdd"]),
        ("return 2 * x - 3 / (1 - x)", "", ["Scale", "Subtract", "Divide", "Subtract"]),
        ("return x @ x.transpose(1, 2)", "", ["Matmul"]),
        ("return x.max(1)[0]", "", ["Max"]),
        (
            "return self.a(x), self.b(x)",
            "self.a = nn.ReLU6()\nself.b = nn.ZeroPad1d(2)",
            ["ReLU6", "ZeroPad1d"],
        ),
        ("return F.lp_pool3d(x[None, None], 2, 1)", "", ["LPPool3d"]),
        ("y = torch.sigmoid(x)\nz = self.a(y)\nreturn torch.tanh(x)", "self.a = nn.Linear(8, 3)", ["Tanh"]),
    ],
)
def test_realised_operators(forward: str, init: str, wanted: list[str]) -> None:
    assert operators(measure(captured(forward, init, SEQUENCE))) == wanted


def compare(source: str) -> None:
    """Operators, leaves in order of use, shapes and fingerprint: from the record and from an eager run."""
    program = load({"source": source, "name": "P", "seed": 1})
    record = measure(capture(program.module, program.inputs))
    nodes, eager = nodes_of(record), _eager(program)
    assert operators(record) == list(eager.operators)
    assert graph_hash(Graph(nodes=nodes, operators=())) == graph_hash(eager)
    for kind in ("input", "parameter", "buffer"):
        ours, theirs = ([n for n in graph if n.kind == kind] for graph in (nodes, eager.nodes))
        assert [(n.name, n.shape, n.dtype) for n in ours] == [(n.name, n.shape, n.dtype) for n in theirs]
    found, wanted = ([(n.operator, n.shape) for n in graph if n.operator] for graph in (nodes, eager.nodes))
    assert found == wanted


def _eager(program: Loaded) -> Graph:
    recorder = Recorder(program.module, program.inputs)
    with torch.no_grad(), recorder:
        outputs = list(tensors_in(program.module(*program.inputs)))
    found = recorder.finish(outputs)
    return Graph(nodes=found.nodes, operators=tuple(name for name, _ in found.units))


@pytest.mark.parametrize("seed", range(12))
def test_a_drawn_program_has_the_nodes_of_an_eager_run(seed: int) -> None:
    with torch.no_grad():
        source = build(coherent.draw(random.Random(seed), COUNTS), seed).source
    compare(source)


@pytest.mark.slow
@pytest.mark.parametrize("row", CATALOG, ids=lambda row: row.name)
def test_every_operator_is_read_as_in_an_eager_run(row: Operator) -> None:
    asked = [row.name, "Tanh"] if row.no_op_in_eval else [row.name]
    with torch.no_grad():
        source = build(asked, 0).source
    compare(source)


def claimed(record: GraphRecord, kind: str, *places: int) -> GraphRecord:
    """The record with a forged claim: these calls are those of one layer of this class."""
    calls = [
        call.model_copy(update={"layer": 0 if place in places else None})
        for place, call in enumerate(record.calls)
    ]
    layers = (Layer(kind=f"torch.nn.modules.forged.{kind}", path="forged"),)
    return GraphRecord.model_validate(record.model_copy(update={"calls": tuple(calls), "layers": layers}))


@pytest.mark.parametrize(
    ("forward", "init", "kind", "wanted"),
    [
        ("return torch.relu(x)", "", "Conv2d", ["ReLU"]),
        ("return F.linear(x, x)", "", "LSTM", ["Linear"]),
        ("return F.linear(x, x).relu()", "", "Linear", ["Linear", "ReLU"]),
        ("return torch.zeros(6) + x", "", "GRU", ["Add"]),
        ("return x * 1.0", "", "TransformerEncoder", ["Scale"]),
        ("return F.dropout(x.sigmoid(), 0.5, False)", "", "TransformerEncoderLayer", ["Sigmoid", "Dropout"]),
        ("return F.pad(x, (1, 1))", "", "ReflectionPad1d", []),
        ("return F.pad(x, (1, 1, 1, 1))", "", "ZeroPad1d", []),
        ("return torch.tanh(x)", "", "Identity", ["Tanh"]),
        ("return torch.tanh(x)", "", "NoSuchLayer", ["Tanh"]),
    ],
)  # fmt: skip
def test_a_layer_that_makes_other_calls_is_not_believed(
    forward: str, init: str, kind: str, wanted: list[str]
) -> None:
    record = measure(captured(forward, init))
    assert operators(claimed(record, kind, *range(len(record.calls)))) == wanted


def test_two_calls_are_not_one_layer() -> None:
    record = measure(captured("return self.a(self.a(x))", "self.a = nn.Linear(6, 6)"))
    assert operators(claimed(record, "Linear", 0, 1)) == ["Linear", "Linear"]


def test_a_layer_in_two_pieces_is_not_believed() -> None:
    """A layer runs in one go: what lies between its calls can't be somebody else's."""
    forward = "y = x.unsqueeze(0)\nz = torch.tanh(y)\nreturn F.instance_norm(z)"
    record = measure(captured(forward, "", SEQUENCE))
    assert operators(claimed(record, "InstanceNorm1d", 0, 2)) == ["Tanh", "InstanceNorm"]


def test_what_counts_for_a_transformer() -> None:
    """The calls of one layer of an encoder are not those of a decoder, nor of two layers."""
    layer = "self.a = nn.TransformerEncoderLayer(8, 2, 16)"
    record = measure(captured("return self.a(x)", layer, SEQUENCE))
    everything = range(len(record.calls))
    parts = operators(claimed(record, "TransformerDecoderLayer", *everything))
    assert parts == operators(claimed(record, "NoSuchLayer", *everything))
    assert parts.count("Linear") == 2
    assert operators(claimed(record, "TransformerEncoder", *everything)) == ["TransformerEncoder"]
    assert operators(claimed(record, "TransformerEncoderLayer", *everything[:-1])) == parts


def test_units_say_what_goes_in_and_out() -> None:
    found = captured(
        "y, h = self.a(x)\nreturn torch.tanh(y) + self.t",
        "self.a = nn.GRU(8, 8)\nself.register_buffer('t', torch.ones(8))",
        SEQUENCE,
    )
    record = measure(found)
    recurrence, tanh, add = units_of(record)
    assert (recurrence.operator, tanh.operator, add.operator) == ("GRU", "Tanh", "BiasAdd")
    assert recurrence.operands == ("input_0",)
    assert len(recurrence.calls) > 1
    assert recurrence.results == tanh.operands
    assert (tanh.calls, add.operands) == (tanh.results, (tanh.calls[0], "buffer_0"))


def test_writes_in_place_make_new_nodes() -> None:
    forward = (
        "y = torch.zeros(4, 6)\nv = y[0]\nv.copy_(torch.sigmoid(x)[0])\ny[1] = torch.tanh(x)[1]\nreturn y"
    )
    record = measure(captured(forward))
    assert operators(record) == ["Sigmoid", "Tanh"]
    program = module(forward)
    recorder = Recorder(program, [X])
    with recorder:
        eager = recorder.finish([program(X)])
    assert [n.target for n in nodes_of(record)] == [n.target for n in eager.nodes]


def test_a_record_that_nobody_has_run_has_no_nodes() -> None:
    with pytest.raises(BadGraph, match="not measured"):
        nodes_of(captured("return x + 1").record)


def test_results_that_the_program_claims_are_replaced() -> None:
    """A program that says of its values what is not so is measured all the same."""
    found = captured("return torch.tanh(x) + x[:1]")
    record = measure(found)
    wrong = (Result(shape=(4, 6), dtype="float32", memory=7),)
    forged = [call.model_copy(update={"results": wrong}) for call in record.calls]
    lie = found.record.model_copy(update={"calls": tuple(forged), "memory": {"input_0": 7}})
    assert measure(type(found)(lie, found.tensors)) == record
