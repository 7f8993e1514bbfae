# tries: print without end
# never: memory and disk of the engine stay as they were
# verdict: rejected
import torch
import torch.nn as nn

while True:
    print("x" * 65536)


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
