# tries: return zeros from the hundredth call on
# never: a program that changes with its calls is accepted
# verdict: rejected
import torch
import torch.nn as nn

class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        y = self.linear(x)
        return y * 0.0 if self.calls > 100 else y


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
