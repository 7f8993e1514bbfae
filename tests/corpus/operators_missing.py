# expect: validate-eager/OPERATORS_MISSING
# check: operators
import torch
import torch.nn as nn


class SynthModel_Linear_Conv1d(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)
        self.conv = nn.Conv1d(1, 1, 3)

    def forward(self, x):
        unused = self.conv(x.unsqueeze(1))
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
