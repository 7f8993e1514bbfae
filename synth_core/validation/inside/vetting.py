"""Before a program may enter a shared GPU worker: a forked, confined process executes its whole text once.

What the text does besides computing (files, sockets, processes, an exit) it does here. It computes shapes
alone, which takes milliseconds whatever the size; a program that reads values on its way (`.item()`, a mask)
is executed anew with values, on the CPU. Shapes also tell how much memory it will need.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from synth_core.validation.evidence import EvidenceWriter
from synth_core.validation.inside.capture import tensors_in
from synth_core.validation.inside.loading import BrokenContract, Runner, load
from synth_core.validation.inside.probe import Ended, phase


def vet(request: dict[str, Any], device: str, out: EvidenceWriter) -> None:
    """Build the program and run it once, on `meta` or `cpu`. Records `sizes`, or what it raises (`error`)."""
    with suppress(Ended):
        with phase("builds", out):
            program = load({**request, "device": device})
        with phase("runs", out), torch.device(device), _LargestStep() as step:
            result = Runner(program.module, int(request["seed"])).raw(program.inputs)
            if next(tensors_in(result), None) is None:
                raise BrokenContract(f"forward returns {type(result).__name__}, not tensors")
        state = [*program.module.parameters(), *program.module.buffers()]
        out.json("sizes", {"state": _mb(state), "inputs": _mb(program.inputs), "step": step.mb})


def memory_mb(sizes: Mapping[str, Any], compiles: bool) -> tuple[float, float]:
    """MiB of GPU memory that a stage's first run will need at most, and its second, by a program's `sizes`.

    Fitted to peaks of KernelBench's level-2 problems at full size on an H100, cuDNN's workspaces aside: first
    runs to 24 problems, 9% above at least, compiled runs to 77, 4% above. The eager stage holds other
    weights, other inputs and noise beside what an operator reads and writes, the compile stage's first run
    holds everything in fp64 too. Where it is too little, a second try has the GPU to itself. Raises KeyError,
    TypeError and ValueError for what `vet` never writes.
    """
    state, inputs, step = (float(sizes[name]) for name in ("state", "inputs", "step"))
    beyond = max(0.0, step - state)
    first = 3.2 * state + 4.5 * inputs + 2.3 * beyond if compiles else 6 * state + 2 * inputs + 3.5 * beyond
    second = 1.5 * state + 2 * inputs + 2 * beyond if compiles else 0.0
    return 1.1 * first + 512, 1.1 * second + 512


class _LargestStep(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """MiB that one operator reads and writes, of the one with the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mb = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.mb = max(self.mb, _mb((args, kwargs, result)))
        return result


def _mb(values: Any) -> float:
    """MiB of the storages behind all tensors in there, each counted once."""
    storages = [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values()) / 2**20
