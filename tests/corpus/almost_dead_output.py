# expect: validate-eager/DEGENERATE
# check: varies
import torch
import torch.nn as nn


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        return torch.relu(self.linear(x) - 1.5)


def get_inputs():
    return [torch.randn(512, 16)]


def get_init_inputs():
    return [[], {}]
