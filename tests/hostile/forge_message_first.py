# tries: say that the graph is captured before anything is, take the seed, and choose inputs by it
# never: evidence written after the seed counts
# verdict: rejected
import torch
import torch.nn as nn

import os

os.write(4, b"+")
seed = os.read(4, 8)


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
