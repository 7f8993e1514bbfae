# expect: validate-eager/EXCEPTION
# check: builds
import torch
import torch.nn as nn


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(3, 16)

    def forward(self, x):
        return self.norm(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
