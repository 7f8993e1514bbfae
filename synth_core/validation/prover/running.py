"""A rebuilt graph that runs on any values of its leaves, always from the same random state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
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
        with torch.no_grad(), _device():
            outputs = (execute or self.module)(*given)
            return [sampled(tensor.detach(), self.most) for tensor in outputs]


class DeviceLost(BaseException):
    """The CUDA context is broken. Nothing that this process measures from now on is true, so it must end."""


@contextlib.contextmanager
def _device() -> Iterator[None]:
    """Wait for the GPU at the end, so that its errors are raised here."""
    try:
        yield
        if _on_gpu():
            torch.cuda.synchronize()
    except RuntimeError as error:
        if "CUDA error" in str(error):
            raise DeviceLost(str(error).splitlines()[0]) from error
        raise


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if _on_gpu():
        torch.cuda.manual_seed(seed)


def _on_gpu() -> bool:
    """Whether this process has a CUDA context."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def quiet_torch() -> None:
    """Set up torch as every run here needs it.

    Transformer layers have a fast path in eager that no compiler sees. On a GPU, TF32 is too inexact for
    comparisons, and some algorithms of cuDNN add up in an order that varies.
    """
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
