# expect: validate-eager/GRAPH_BREAK
# check: full_graph
import torch
import torch.nn as nn


class SynthModel_Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        scale = float(self.linear(x).sum().item())
        return self.linear(x) * (3.0 if scale > 0 else 2.0)


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {}]
