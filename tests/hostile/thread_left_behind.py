# tries: leave a thread that never ends
# never: no process of it is left
import torch
import torch.nn as nn

import threading
import time

threading.Thread(target=time.sleep, args=(3600,)).start()


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
