# tries: search the raw bytes of its memory for other programs' texts
# never: it finds a neighbour's text
# verdict: no "NEIGHBOUR"
import torch
import torch.nn as nn

import ctypes

mark = ("# num" + "ber ").encode()
with open("/proc/self/maps") as maps:
    for line in maps:
        area, mode, *_, = line.split()
        if "rw" not in mode or "[v" in line:
            continue
        start, end = (int(part, 16) for part in area.split("-"))
        data = ctypes.string_at(start, min(end - start, 2**26))
        at = data.find(mark)
        while at >= 0:
            if data[at + len(mark) : at + len(mark) + 1].isdigit():
                raise RuntimeError("NEIGHBOUR")
            at = data.find(mark, at + 1)


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
