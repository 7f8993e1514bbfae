# expect: validate-eager/DEGENERATE
# check: operators_matter
import torch
import torch.nn as nn


class SynthModel_Linear_Sigmoid_ReLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        return torch.relu(torch.sigmoid(self.linear(x)))


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
