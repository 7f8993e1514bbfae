# expect: validate-eager/TIMEOUT
# check: timeout
# unguarded: the static gate is off
import torch
import torch.nn as nn
import time



class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        time.sleep(3600)
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
