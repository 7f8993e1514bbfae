# tries: put commands for a terminal into an exception that the harness raises for it
# never: a terminal sees them
# verdict: rejected
import torch
import torch.nn as nn

class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def parameters(self, recurse=True):
        raise ValueError(chr(27) + "]0;owned" + chr(7) + chr(155))

    def forward(self, x):
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
