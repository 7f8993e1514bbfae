# tries: put another capture function into the harness, one that calls torch.compile a success
# never: a program with a graph break is accepted
# verdict: rejected
import torch
import torch.nn as nn

import sys

harness = sys.modules["synth_core.validation.inside.run"]
true_capture = harness.capture


def capture(module, inputs):
    simple = nn.Module()
    simple.linear = module.linear
    simple.forward = lambda x: simple.linear(x)
    return true_capture(simple, inputs)


harness.capture = capture


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        x = self.linear(x)
        if x.sum().item() > 0:
            x = x * 2
        return x


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
