# tries: compute something else as soon as the graph is captured
# never: the text's own outputs are not what decides
# verdict: rejected
import torch
import torch.nn as nn

captured = []


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        y = self.linear(x)
        captured.append(1)
        return y if len(captured) < 3 else y * 1.5


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
