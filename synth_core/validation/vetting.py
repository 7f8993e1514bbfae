"""Before a program may enter a shared GPU worker: a forked, confined process executes its whole text once.

What the text does besides computing (files, sockets, processes, an exit) it does here. It computes shapes
alone, which takes milliseconds whatever the size; a program that reads values on its way (`.item()`, a mask)
is executed anew with values, on the CPU.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from synth_core.validation.capture import tensors_in
from synth_core.validation.evidence import EvidenceWriter
from synth_core.validation.loading import BrokenContract, Runner, load
from synth_core.validation.probe import Ended, phase


def vet(request: dict[str, Any], device: str, out: EvidenceWriter) -> None:
    """Build the program and run it once, on `meta` or `cpu`. Records nothing but what it raises (`error`)."""
    with suppress(Ended):
        with phase("builds", out):
            program = load({**request, "device": device})
        with phase("runs", out), torch.device(device):
            result = Runner(program.module, int(request["seed"])).raw(program.inputs)
            if next(tensors_in(result), None) is None:
                raise BrokenContract(f"forward returns {type(result).__name__}, not tensors")
