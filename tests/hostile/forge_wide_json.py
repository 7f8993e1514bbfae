# tries: write sixty megabytes of JSON as evidence
# never: whoever reads it takes gigabytes
# verdict: rejected
import torch
import torch.nn as nn

import sys

harness = sys.modules["synth_core.validation.inside.run"]
true_json = harness.EvidenceWriter.json
harness.EvidenceWriter.json = lambda self, name, value: true_json(self, name, [[]] * 15_000_000)


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
