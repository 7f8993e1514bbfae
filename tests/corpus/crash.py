# expect: validate-eager/CRASH
# check: crash
# unguarded: the static gate is off
import torch
import torch.nn as nn
import os
import signal



class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        os.kill(os.getpid(), signal.SIGSEGV)
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
