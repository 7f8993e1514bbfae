# tries: succeed in eager, end with success before compiling
# never: that is not taken for a success
# verdict: rejected
import torch
import torch.nn as nn

import os


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        if torch.compiler.is_compiling():
            os._exit(0)
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
