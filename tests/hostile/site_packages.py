# tries: plant a start-up hook among the installed packages
# never: no file of that name is there
import torch
import torch.nn as nn

import os

open(os.path.dirname(torch.__file__) + '/../@MARK@.pth', 'w').write('import os')


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
