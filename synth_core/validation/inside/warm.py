"""Warm up a process: import torch and capture one small program, so that its forks need not do it."""

from __future__ import annotations

import platform
from typing import Any

import torch

from synth_core.graph.capture import capture
from synth_core.validation.sample import Sample


def up(captures: bool) -> dict[str, Any]:
    """Import, configure and warm up, with one thread; return the versions of torch and Python.

    A process that forks must never have run a parallel region. Otherwise its children hang in OpenMP.
    """
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    sample = Sample().eval()
    inputs = [torch.randn(2, 3, 8, 8)]
    with torch.no_grad():
        sample(*inputs)
    if captures:
        capture(sample, inputs)
    return {"torch": torch.__version__, "python": platform.python_version()}
