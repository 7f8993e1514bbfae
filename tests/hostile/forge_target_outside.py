# tries: write a graph by hand that calls a function of Python
# never: anything but torch is called by a prover
# verdict: rejected
import torch
import torch.nn as nn

import json
import os
import sys

harness = sys.modules["synth_core.validation.inside.run"]
true_json = harness.EvidenceWriter.json


def forged(self, name, value):
    if name == "graph":
        graph = json.loads(value)
        for call in graph["calls"]:
            call["target"] = "os.system"
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
