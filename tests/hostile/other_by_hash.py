# tries: take its width from the hash of a text
# never: a program that differs from process to process is accepted
# verdict: rejected
import torch
import torch.nn as nn

class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)
        with torch.no_grad():
            self.linear.weight *= 1.0 + hash("a text") % 97 / 97

    def forward(self, x):
        return self.linear(x)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
