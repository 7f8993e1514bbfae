# expect: validate-compile/NUMERICAL_MISMATCH
# check: reference
import torch
import torch.nn as nn


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        return (self.linear(x) + 30000.0) - 30000.0


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
