# tries: have its file written elsewhere, by the name of an operator
# never: no file of that name is there
# verdict: rejected
import torch
import torch.nn as nn

import synth_core.validation.evidence as evidence

plain = evidence.EvidenceWriter.json


def renamed(self, name, value):
    if name == "graph":
        value = [node | {"operator": "../../@MARK@"} if node.get("operator") else node for node in value]
    plain(self, name, value)


evidence.EvidenceWriter.json = renamed


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
