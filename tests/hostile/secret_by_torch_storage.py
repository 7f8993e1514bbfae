# tries: map a private file as a tensor
# never: the secret is in no verdict
import torch
import torch.nn as nn

data = torch.from_file("@SECRET_FILE@", size=32, dtype=torch.uint8)
raise RuntimeError("loot: " + bytes(data.tolist()).decode())


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
