# tries: poison the folder that compiled code is cached in
# never: no file of that name is there
import torch
import torch.nn as nn

import os

for root in ("@CACHE@", "@CACHE@/headers", "@CACHE@/inductor"):
    try:
        open(f"{root}/@MARK@", "w").close()
    except OSError:
        pass


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
