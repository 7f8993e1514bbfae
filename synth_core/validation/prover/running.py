"""A rebuilt graph that runs on any values of its leaves, always from one random state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from synth_core.graph.rebuild import arguments
from synth_core.graph.record import GraphRecord

Values = Mapping[str, torch.Tensor]
Outputs = list[torch.Tensor]
Execute = Callable[..., Any]


class Graph:
    """Runs on copies of what it is given, since a graph may write to its inputs and buffers."""

    def __init__(self, record: GraphRecord, module: fx.GraphModule, seed: int) -> None:
        self.record, self.module, self.seed = record, module, seed

    def __call__(self, values: Values, execute: Execute | None = None, seed: int | None = None) -> Outputs:
        """The outputs, copied. execute: what runs in place of the module, on the same arguments."""
        given = arguments(self.record, values)
        torch.default_generator.manual_seed(self.seed if seed is None else seed)
        with torch.no_grad():
            outputs = (execute or self.module)(*given)
        return [tensor.detach().clone() for tensor in outputs]


def quiet_torch(exact: bool) -> None:
    """Torch as every run here needs it.

    Transformer layers have a fast path in eager that no compiler sees. On a GPU, TF32 would blur what is
    compared with another precision or other code; compared with itself (not `exact`) a program may have it,
    but then none of cuDNN's algorithms that add up in an order of their own.
    """
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = not exact
    torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cudnn.deterministic = not exact
