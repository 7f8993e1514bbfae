# tries: take a factor from the address of an object
# never: a program that differs from process to process is accepted
# verdict: rejected
import torch
import torch.nn as nn

class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)
        self.factor = 1.0 + id(self) % 8191 / 8191

    def forward(self, x):
        return self.linear(x) * self.factor


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
