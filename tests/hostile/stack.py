# tries: overflow the C stack
# never: it is a crash of its own
# verdict: rejected
import torch
import torch.nn as nn

import sys

sys.setrecursionlimit(10**9)


def deeper(n):
    return [deeper(n + 1)]


deeper(0)


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
