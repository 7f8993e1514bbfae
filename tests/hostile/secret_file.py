# tries: read a private file
# never: the secret is in no verdict
import torch
import torch.nn as nn

raise RuntimeError("loot: " + open("@SECRET_FILE@").read())


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
