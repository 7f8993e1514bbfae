# tries: take a factor from the clock
# never: a program that differs from run to run is accepted
# verdict: rejected
import torch
import torch.nn as nn

import time


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)
        self.factor = 1.0 + time.time() % 1.0

    def forward(self, x):
        return self.linear(x) * self.factor


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
