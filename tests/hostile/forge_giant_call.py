# tries: write a graph by hand that asks for a tensor of a terabyte
# never: a prover takes more memory than it may, or its neighbours go without a verdict
# verdict: rejected
import torch
import torch.nn as nn

import json
import sys

harness = sys.modules["synth_core.validation.inside.run"]
true_json = harness.EvidenceWriter.json


def forged(self, name, value):
    if name == "graph":
        graph = json.loads(value)
        call = graph["calls"][0]
        graph["calls"] = [{"name": "big", "target": "torch.zeros", "args": [2**38]}, *graph["calls"]]
        value = json.dumps(graph)
    true_json(self, name, value)


harness.EvidenceWriter.json = forged


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
