# tries: kill a process of the user
# never: the process lives
import torch
import torch.nn as nn

import os
import signal

os.kill(@VICTIM@, signal.SIGKILL)


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
