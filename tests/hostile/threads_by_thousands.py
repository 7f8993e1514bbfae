# tries: start three thousand threads
# never: other processes of this user find no thread left
# verdict: rejected
import torch
import torch.nn as nn

import threading
import time

for _ in range(3000):
    threading.Thread(target=time.sleep, args=(600,)).start()


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
