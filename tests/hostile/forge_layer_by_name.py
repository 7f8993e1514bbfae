# tries: pass its own class off as a layer of torch.nn by its module and its name
# never: an operator is believed because a class is called like it
# verdict: rejected
import torch
import torch.nn as nn

class Stub(nn.Module):
    def forward(self, x):
        return torch.relu(x)


Stub.__module__, Stub.__qualname__ = "torch.nn.modules.conv", "Conv2d"


class SynthModel_Conv2d_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = Stub()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        return self.linear(self.conv(x))


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
