# tries: mount a file system over another
# never: the folder stays what it was
import torch
import torch.nn as nn

import ctypes

libc = ctypes.CDLL(None, use_errno=True)
libc.unshare(0x10000000 | 0x00020000)
libc.mount(b"none", b"@FOLDER@", b"tmpfs", 0, None)
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
