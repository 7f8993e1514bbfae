# tries: leave a daemon that writes later
# never: the daemon is gone, and nothing is written
import torch
import torch.nn as nn

import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(8)
        open("@FOLDER@/@MARK@", "w").close()
        time.sleep(3600)
    os._exit(0)


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
