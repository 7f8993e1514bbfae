# tries: attach to another process
# never: the process lives and is not traced
import torch
import torch.nn as nn

import ctypes

ctypes.CDLL(None, use_errno=True).ptrace(16, @VICTIM@, 0, 0)


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
