# tries: put commands for a terminal into the last line before a crash
# never: a terminal sees them
# verdict: rejected
import torch
import torch.nn as nn

import os

os.write(2, b"\x1b[2J\x1b]0;owned\x07\xff\n")
os.abort()


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
