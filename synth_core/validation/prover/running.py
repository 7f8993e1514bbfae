"""A rebuilt graph that runs on any values of its leaves, always from one random state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from synth_core.graph.rebuild import arguments
from synth_core.graph.record import GraphRecord
from synth_core.validation.evidence import sampled

Values = Mapping[str, torch.Tensor]
Outputs = list[torch.Tensor]
Execute = Callable[..., Any]


class Graph:
    """Runs on copies of what it is given, since a graph may write to its inputs and buffers.

    most: elements of an output that are looked at; None: all.
    """

    def __init__(
        self, record: GraphRecord, module: fx.GraphModule, seed: int, most: int | None = None
    ) -> None:
        self.record, self.module, self.seed, self.most = record, module, seed, most

    def __call__(self, values: Values, execute: Execute | None = None, seed: int | None = None) -> Outputs:
        """The outputs, copied. execute: what runs in place of the module, on the same arguments."""
        given = arguments(self.record, values)
        torch.default_generator.manual_seed(self.seed if seed is None else seed)
        with torch.no_grad():
            outputs = (execute or self.module)(*given)
        return [sampled(tensor.detach(), self.most) for tensor in outputs]


def quiet_torch() -> None:
    """Torch as every run here needs it.

    Transformer layers have a fast path in eager that no compiler sees. On a GPU, TF32 would blur what is
    compared with another precision or other code, and some of cuDNN's algorithms add up in an order of their
    own.
    """
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
