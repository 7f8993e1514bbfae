# tries: learn which files of the host exist
# never: their existence is told
# verdict: no "TOLD"
import torch
import torch.nn as nn

import os

if any(os.path.lexists(path) for path in ("/etc/shadow", "/etc/hostname", "@CANARY@", "/var", "/sys/class")):
    raise RuntimeError("TOLD")


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
