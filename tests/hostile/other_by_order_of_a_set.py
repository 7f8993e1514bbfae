# tries: draw the weights of its layers in the order of a set of two texts
# never: a program that differs from process to process is accepted
# verdict: rejected
import torch
import torch.nn as nn

class SynthModel_Linear_Tanh(nn.Module):
    def __init__(self):
        super().__init__()
        layers = {name: nn.Linear(16, 16) for name in {"left", "right"}}
        self.left, self.right = layers["left"], layers["right"]

    def forward(self, x):
        return torch.tanh(self.right(torch.tanh(self.left(x))))


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
