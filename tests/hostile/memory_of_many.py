# tries: take all memory with several processes
# never: it is stopped, and no process of it is left
# verdict: rejected
import torch
import torch.nn as nn

import os
import time

for _ in range(6):
    if os.fork() == 0:
        hoard = [torch.ones(2**20) for _ in range(60)]
        time.sleep(3600)
time.sleep(3600)


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
