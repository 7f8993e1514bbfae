# tries: write the same digests in every process, whatever was computed
# never: a program that differs from process to process is accepted
# verdict: rejected
import torch
import torch.nn as nn

import os
import sys

harness = sys.modules["synth_core.validation.inside.run"]
harness.digest = lambda tensor: "0" * 64


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)
        with torch.no_grad():
            self.linear.bias += float(int.from_bytes(os.urandom(2), "little"))

    def forward(self, x):
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
