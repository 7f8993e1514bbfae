# tries: keep count in a global, and change with it
# never: a program that changes with its calls is accepted
# verdict: rejected
import torch
import torch.nn as nn

CALLS = [0]


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        CALLS[0] = CALLS[0] + 1
        y = self.linear(x)
        return y if CALLS[0] < 100 else y * 0.5


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
