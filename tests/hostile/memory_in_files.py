# tries: keep gigabytes in files that lie in memory
# never: the machine runs out of memory
# verdict: rejected
import torch
import torch.nn as nn

import os
import time

held = []
for number in range(64):
    file = open(f"file{number}", "wb")
    held.append(file)
    file.write(bytes(2**25))
for descriptor in (3, 6):
    while True:
        try:
            os.write(descriptor, bytes(2**24))
        except OSError:
            break
time.sleep(600)


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
