# tries: read a private file with numpy
# never: the secret is in no verdict
import torch
import torch.nn as nn

import numpy

raise RuntimeError("loot: " + bytes(numpy.fromfile("@SECRET_FILE@", dtype=numpy.uint8)).decode())


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
