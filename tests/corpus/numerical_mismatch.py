# expect: validate-eager/NUMERICAL_MISMATCH
# check: faithful
# unguarded: the static gate is off
import torch
import torch.nn as nn


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        y = self.linear(x)
        if torch.compiler.is_compiling():
            y = y + 0.01
        return y


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
