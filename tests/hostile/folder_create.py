# tries: create a file in a folder of another
# never: the file, its folder and all that is in it stay as they were
import torch
import torch.nn as nn

import os

open("@FOLDER@/@MARK@", "w").close()


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
