"""A small program of our own, for warming up processes."""

from __future__ import annotations

import torch
from torch import nn


class Sample(nn.Module):
    """Uses convolution, normalisation, attention, reduction and pointwise code."""

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
