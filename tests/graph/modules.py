"""Small modules from a few lines of `forward`, and what capture and rebuild make of them."""

from __future__ import annotations

import textwrap
from typing import Any

import torch
from torch import nn

from synth_core.graph.capture import Captured, capture
from synth_core.graph.encode import tensors_in
from synth_core.graph.rebuild import arguments, measured, rebuild
from synth_core.graph.record import GraphRecord

torch.set_num_threads(1)
torch.backends.mha.set_fastpath_enabled(False)  # as where programs are judged: no compiler sees that path
X = torch.linspace(-1.0, 1.0, 24).reshape(4, 6)


def module(forward: str, init: str = "", args: str = "x", top: str = "") -> nn.Module:
    """A module in eval mode, as if a program of these lines had been read."""
    text = "\n".join(
        [
            "import math, torch",
            "import torch.nn as nn",
            "import torch.nn.functional as F",
            top,
            "class P(nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
            textwrap.indent(textwrap.dedent(init), "        "),
            f"    def forward(self, {args}):",
            textwrap.indent(textwrap.dedent(forward), "        "),
        ]
    )
    namespace: dict[str, Any] = {"__name__": "program"}
    exec(text, namespace)
    torch.manual_seed(0)
    built: nn.Module = namespace["P"]().eval()
    return built


def captured(forward: str, init: str = "", *inputs: Any, args: str = "x", top: str = "") -> Captured:
    return capture(module(forward, init, args, top), inputs or (X,))


def eager(program: nn.Module, inputs: Any) -> list[torch.Tensor]:
    torch.manual_seed(3)
    with torch.no_grad():
        result = program(*[i.clone() if isinstance(i, torch.Tensor) else i for i in inputs])
    return [tensor.clone() for tensor in tensors_in(result)]


def rebuilt(record: GraphRecord, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The outputs of the graph that a process has rebuilt from JSON alone."""
    read = GraphRecord.parse(record.dump())
    graph = rebuild(read, tensors)
    torch.manual_seed(3)
    with torch.no_grad():
        return list(graph(*arguments(read, tensors)))


def measure(found: Captured) -> GraphRecord:
    torch.manual_seed(3)
    graph = rebuild(found.record, found.tensors)
    return measured(found.record, graph, arguments(found.record, found.tensors))[0]
