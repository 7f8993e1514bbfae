# expect: validate-eager/NON_FINITE
# check: finite
import torch
import torch.nn as nn


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        return torch.log(self.linear(x))


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
