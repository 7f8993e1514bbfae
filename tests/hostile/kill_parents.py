# tries: kill the process that supervises it
# never: programs after it are judged
import torch
import torch.nn as nn

import os
import signal

for pid in (os.getppid(), 1, @ENGINE@):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


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
