"""Warming a process up: import torch and capture one small program, so that its forks need not."""

from __future__ import annotations

import platform
from typing import Any

import torch
import torch._dynamo
from torch import nn

from synth_core.graph.capture import capture


def up(captures: bool) -> dict[str, Any]:
    """Import, configure and warm up, with one thread; return the versions of what runs.

    A process that forks must never have run a parallel region: its children would hang in OpenMP.
    """
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    sample = Sample().eval()
    inputs = [torch.randn(2, 3, 8, 8)]
    with torch.no_grad():
        sample(*inputs)
    if captures:
        capture(sample, inputs)
    return {"torch": torch.__version__, "python": platform.python_version()}


class Sample(nn.Module):
    """Touches convolution, normalisation, attention, reduction and pointwise code."""

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
