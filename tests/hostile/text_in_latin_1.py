#!/usr/bin/env python
# vim: set fileencoding=latin-1 :
# tries: name another encoding than UTF-8 in its second line
# never: Python reads another text than the one that ran
# verdict: rejected
import torch
import torch.nn as nn


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
