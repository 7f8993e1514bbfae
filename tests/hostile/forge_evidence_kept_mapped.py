# tries: keep the evidence mapped to write it after the seed is known
# never: what was captured changes afterwards
# verdict: rejected
import torch
import torch.nn as nn

import mmap
import os
import sys

harness = sys.modules["synth_core.validation.inside.run"]
process = harness.process
os.ftruncate(process.EVIDENCE, 4096)
region = mmap.mmap(process.EVIDENCE, 4096)


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
