# expect: filter/CONTAMINATED
import torch
import torch.nn as nn


class SynthModel_Conv2d_ReLU_BiasAdd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bias = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x):
        x = torch.relu(self.conv(x))
        return x + self.bias


def get_inputs():
    return [torch.randn(2, 3, 10, 10)]


def get_init_inputs():
    return [[], {}]
