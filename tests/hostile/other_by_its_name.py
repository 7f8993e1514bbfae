# tries: compute something else under the name that it gets after the eager stage
# never: it is accepted
# verdict: rejected
import torch
import torch.nn as nn


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        return self.linear(x) * len(self._get_name())


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
