# expect: validate-eager/DEGENERATE
# check: operators_matter
import torch
import torch.nn as nn


class SynthModel_Linear_Tanh(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        scale = torch.tanh(x[:, :8])
        return self.linear(x) + 0.0 * scale


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
