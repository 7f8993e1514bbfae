# expect: validate-eager/DEGENERATE
# check: inputs_matter
import torch
import torch.nn as nn


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x, y):
        return self.linear(x) + 0.0 * y


def get_inputs():
    return [torch.randn(4, 16), torch.randn(4, 8)]


def get_init_inputs():
    return [[], {}]
