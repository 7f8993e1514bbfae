# tries: take memory that outlives it
# never: no segment of it is left
import torch
import torch.nn as nn

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
identifier = libc.shmget(@SPARE@, 2**20, 0o1777)
if identifier < 0:
    raise RuntimeError("refused")


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
