# tries: write a graph by hand of calls that take a prover hours
# never: the prover's other programs wait for it
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
        calls = [{"name": "m0", "target": "torch.ones", "args": [3000, 3000]}]
        calls += [
            {"name": f"m{i + 1}", "target": "torch.matmul", "args": [{"ref": f"m{i}"}, {"ref": f"m{i}"}]}
            for i in range(9000)
        ]
        graph["calls"] = [*calls, *graph["calls"]]
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
