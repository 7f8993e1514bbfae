"""Warming a process up: import torch and compile one small program, so that its forks need not.

A cold Inductor spends about 14 CPU seconds on probing the processor, hashing headers and filling tables.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import platform
from typing import Any

import torch
import torch._dynamo
import torch._functorch.config
import torch._inductor.config
from torch import nn

from synth_core.errors import UsageError
from synth_core.validation.inside import strides
from synth_core.validation.inside.kernels import defer_compilation


def require_gpu() -> None:
    """Raise UsageError where torch sees no CUDA device. Does not initialise CUDA, which no fork survives."""
    if not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here; use --device cpu")


def up(device: str) -> dict[str, Any]:
    """Import, configure and warm up, with one thread; return the versions of what runs.

    For the CPU one program is compiled, and from then on Inductor in this process and its forks hands its
    C++ out to be compiled (kernels.py). For a GPU none is: wherever torch sees one, Dynamo asks it for the
    state of its generator, and a process that has a CUDA context cannot fork workers that use theirs.
    Programs are vetted on shapes alone then, so that is what is warmed up; workers compile for themselves.
    """
    torch.set_num_threads(1)
    # A fork writes to a scratch that dies with it: caches of graphs on disk would cost hashing for nothing.
    torch._inductor.config.fx_graph_cache = False
    torch._functorch.config.enable_autograd_cache = False
    torch._inductor.config.compile_threads = 1
    torch._inductor.config.cpp_cache_precompile_headers = False  # a header of its own, or 10 s for nothing
    # Off by default, and then nn.RNN, nn.GRU and nn.LSTM are graph breaks; Inductor compiles all three well.
    torch._dynamo.config.allow_rnn = True
    if device == "cpu":
        strides.quicken()
        compile_sample(device)
        defer_compilation()
    else:
        importlib.import_module("torch._inductor.compile_fx")
        with torch.device("meta"), torch.no_grad():
            _Sample().eval()(torch.randn(2, 3, 8, 8))
        _close_nvml()
    return {"torch": torch.__version__, "python": platform.python_version()}


def _close_nvml() -> None:
    """Close what looking for a GPU has opened. A fork, which closes all descriptors, would be left with a
    library that believes they are open: it counts no GPU, and makes an internal error of a lack of memory."""
    with contextlib.suppress(OSError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        while library.nvmlShutdown() == 0:  # as often as it was opened
            pass


def compile_sample(device: str) -> None:
    """Compile one small program and run it."""
    with torch.no_grad(), torch.device(device):
        torch.compile(_Sample().eval(), fullgraph=True, dynamic=False)(torch.randn(2, 3, 8, 8))
    torch._dynamo.reset()


class _Sample(nn.Module):
    """Touches convolution, normalisation, attention, reduction and pointwise code of Inductor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = nn.functional.max_pool2d(x, 2).flatten(2).transpose(1, 2)
        x, _ = self.attend(x, x, x)
        return torch.softmax(self.linear(x).mean(1), -1)
