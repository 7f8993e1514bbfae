# tries: listen for connections
# never: nothing answers at that port
# verdict: rejected
import torch
import torch.nn as nn

import socket
import time

server = socket.socket()
server.bind(("127.0.0.1", @SPARE@))
server.listen()
time.sleep(60)


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
