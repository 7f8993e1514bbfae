# tries: regain privileges
# never: it stays what it is
import torch
import torch.nn as nn

import os

os.setuid(0)
if os.getuid() == 0 and os.access("@SECRET_FILE@", os.R_OK):
    raise RuntimeError("loot: " + open("@SECRET_FILE@").read())


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
