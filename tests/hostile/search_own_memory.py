# tries: search all of its memory for other programs' texts
# never: it finds a neighbour's text
# verdict: no "NEIGHBOUR"
import torch
import torch.nn as nn

import gc

mark = "num" + "ber "
found = set()
for thing in gc.get_objects():
    if isinstance(thing, dict):
        found |= {v for v in list(thing.values()) if isinstance(v, str) and "# " + mark in v}
if found:
    raise RuntimeError("NEIGHBOUR")


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
