"""Live values guide the synthesizer, and processors round differently: the text must not show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

COUNT = 60
# As a processor with none of the wide instructions would compute, in torch and in the libraries under it.
PLAIN = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
_WRITE = f"""
import json, torch
from synth_core.sampling.sample import sample
from synth_core.settings import Settings
from synth_core.strategies import effective_strategies
from synth_core.synthesis.build import build

torch.set_num_threads(1)
settings = Settings(seed=7, strategy="balanced").resolved()
asked = [c.specification for c in sample(settings, effective_strategies(settings)[0], range({COUNT}))]
with torch.no_grad():
    sources = [build(one.operators, one.seed).source for one in asked]
print(json.dumps([torch.backends.cpu.get_cpu_capability(), sources]))
"""


def test_the_same_bytes_on_processors_that_compute_differently() -> None:
    def write(**more: str) -> tuple[str, list[str]]:
        command = [sys.executable, "-c", _WRITE]
        done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True, check=True)
        capability, sources = json.loads(done.stdout)
        return capability, sources

    here, there = write(), write(**PLAIN)
    if here[0] == there[0]:
        pytest.skip(f"this processor offers no more than {here[0]}")
    assert here[1] == there[1]
    assert len(set(here[1])) == COUNT
