# tries: append to a file
# never: the file, its folder and all that is in it stay as they were
import torch
import torch.nn as nn

import os

open("@CANARY@", "a").write("more")


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
