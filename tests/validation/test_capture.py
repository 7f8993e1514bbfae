"""The captured graph: what is in it, and which operators it realises in which order."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from probing import program
from torch import nn

from synth_core.records import Node
from synth_core.validation.inside.capture import Captured, Recorder, tensors_in
from synth_core.validation.inside.loading import load


def capture(source: str) -> Captured:
    loaded = load({"source": source, "name": "P", "seed": 1})
    recorder = Recorder(loaded.module, loaded.inputs)
    with torch.no_grad(), recorder:
        outputs = list(tensors_in(loaded.module(*loaded.inputs)))
    return recorder.finish(outputs)


def operators(forward: str, init: str = "", inputs: str = "torch.randn(2, 4, 8)") -> list[str]:
    return [name for name, _ in capture(program(forward, init, inputs)).units]


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
        ("return self.a(x)", "self.a = nn.Sequential(nn.Linear(8, 3), nn.Sigmoid())", ["Linear", "Sigmoid"]),
        ("return self.a(x)[0]", "self.a = nn.LSTM(8, 5)", ["LSTM"]),
        ("return self.a(x)", "self.a = nn.TransformerEncoderLayer(8, 2, 16)", ["TransformerEncoderLayer"]),
        ("return self.a(x, x, x)[0]", "self.a = nn.MultiheadAttention(8, 2)", ["MultiheadAttention"]),
        ("return torch.tanh(self.a(x))", "self.a = nn.Identity()", ["Identity", "Tanh"]),
        ("return torch.tanh(self.a(x))", "self.a = nn.Dropout(0.5)", ["Dropout", "Tanh"]),
        ("return torch.tanh(x) + x", "", ["Tanh", "ResidualAdd"]),
        ("return x + self.b", "self.b = nn.Parameter(torch.randn(8))", ["BiasAdd"]),
        ("return x @ x.transpose(1, 2)", "", ["Matmul"]),
        ("return x.max(1)[0]", "", ["Max"]),
        ("return self.a.forward(x)", "self.a = nn.Linear(8, 3)", ["Linear"]),
    ],
)
def test_realised_operators(forward: str, init: str, wanted: list[str]) -> None:
    assert operators(forward, init) == wanted


def test_what_reaches_no_output_is_not_realised() -> None:
    assert operators(
        "y = torch.sigmoid(x)\nz = self.a(y)\nreturn torch.tanh(x)", "self.a = nn.Linear(8, 3)"
    ) == ["Tanh"]


def test_a_graph_is_connected_through_writes_in_place() -> None:
    """What is written into a tensor, or into a view of it, reaches the output with it."""
    lines = [
        "y = torch.zeros(2, 4, 8)",
        "v = y[0]",
        "v.copy_(torch.sigmoid(x)[0])",
        "y[1] = torch.tanh(x)[1]",
    ]
    assert operators("\n".join([*lines, "return y * 2"])) == ["Sigmoid", "Tanh", "Scale"]


def test_nodes_tell_leaves_shapes_and_arguments() -> None:
    captured = capture(
        program(
            "return self.conv(x) + self.offset",
            "self.conv = nn.Conv1d(4, 6, 3, stride=2)\nself.register_buffer('offset', torch.ones(6, 1))",
            "torch.randn(2, 4, 9)",
        )
    )
    nodes: dict[str, Node] = {node.name: node for node in captured.nodes}
    assert [node.kind for node in captured.nodes] == [
        "input", "parameter", "parameter", "call", "buffer", "call", "output",
    ]  # fmt: skip
    conv = captured.nodes[3]
    assert (conv.target, conv.operator, conv.shape) == ("torch.nn.functional.conv1d", "Conv1d", (2, 6, 4))
    assert conv.inputs == ("input_0", "self.conv.weight", "self.conv.bias")
    assert json.loads(conv.arguments)[0][3] == [2]
    assert nodes["self.offset"].shape == (6, 1)
    assert nodes["output"].inputs == (captured.nodes[5].name,)


def test_capture_is_the_same_every_time() -> None:
    source = program("return torch.tanh(self.a(x)) + x", "self.a = nn.Linear(8, 8)", "torch.randn(2, 8)")
    assert capture(source) == capture(source)


def test_the_program_computes_the_same_under_the_recorder() -> None:
    module: nn.Module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.LayerNorm(8)).eval()
    x: Any = torch.randn(3, 8)
    with torch.no_grad():
        plain = module(x)
        with Recorder(module, [x]):
            recorded = module(x)
    assert torch.equal(plain, recorded)
