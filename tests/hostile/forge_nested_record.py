# tries: write a record of a graph that is nested a million deep
# never: whoever reads it dies
# verdict: rejected
import torch
import torch.nn as nn

import sys

harness = sys.modules["synth_core.validation.inside.run"]
true_json = harness.EvidenceWriter.json
deep = "[" * 1_000_000 + "]" * 1_000_000
harness.EvidenceWriter.json = lambda self, name, value: true_json(self, name, deep if name == "graph" else value)


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
