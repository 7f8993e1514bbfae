# expect: validate-eager/NONDETERMINISTIC
# check: deterministic
import torch
import torch.nn as nn


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * self.calls


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
