"""A rebuilt graph that runs on any values of its leaves, always from the same random state."""

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
    """Runs on copies of the values, because a graph may write to its inputs and buffers.

    most: how many elements of an output are kept; None: all.
    """

    def __init__(
        self, record: GraphRecord, module: fx.GraphModule, seed: int, most: int | None = None
    ) -> None:
        self.record, self.module, self.seed, self.most = record, module, seed, most

    def __call__(self, values: Values, execute: Execute | None = None, seed: int | None = None) -> Outputs:
        """Copies of the outputs. execute: runs instead of the module, on the same arguments."""
        given = arguments(self.record, values)
        _seed(self.seed if seed is None else seed)
        with torch.no_grad():
            outputs = (execute or self.module)(*given)
        return [sampled(tensor.detach(), self.most) for tensor in outputs]


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


def quiet_torch() -> None:
    """Set up torch as every run here needs it.

    Transformer layers have a fast path in eager that no compiler sees. On a GPU, TF32 is too inexact for
    comparisons, and some algorithms of cuDNN add up in an order that varies.
    """
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
