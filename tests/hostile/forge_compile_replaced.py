# tries: replace torch.compile through the module that defines nn.Module, with no import
# never: a program with a graph break is accepted
# verdict: rejected
import torch
import torch.nn as nn

base = nn.modules.module
base.torch.compile = lambda module, **options: module


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        x = self.linear(x)
        if x.abs().max().item() > 0.1:
            x = torch.tanh(x)
        return x


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
