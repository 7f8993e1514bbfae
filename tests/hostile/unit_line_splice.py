# tries: hide a directive behind a line splice and a trigraph
# never: the compiler is shown no such line; programs in its unit are judged right
import torch
import torch.nn as nn

import synth_core.validation.inside.kernels as kernels

plain = kernels.Kernel.__init__


def poisoned(self, argument_types, source):
    plain(self, argument_types, source + '\n#\\\ninclude "@SECRET_FILE@"\n??=include "@SECRET_FILE@"\n')


kernels.Kernel.__init__ = poisoned


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        x = torch.tanh(x) * torch.sigmoid(x)
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
