# tries: learn the size and the time of a file that it may not read
# never: its metadata is told
# verdict: no "TOLD"
import torch
import torch.nn as nn

import os

try:
    raise RuntimeError(f"TOLD {os.stat('@SECRET_FILE@').st_size}")
except OSError as error:
    raise RuntimeError(error.strerror) from None


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
