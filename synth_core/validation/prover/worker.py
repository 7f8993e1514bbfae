"""Warming a prover up, before it is forked: what Inductor fills its tables with, and the compiler's header."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from synth_core.errors import UsageError
from synth_core.graph.capture import capture
from synth_core.graph.rebuild import arguments, rebuild
from synth_core.records import Stage
from synth_core.validation.ends import Judgement
from synth_core.validation.evidence import Evidence
from synth_core.validation.prover import case, compiled, decide, eager, inductor, running, serving, strides
from synth_core.validation.prover.compiler import Compiler, find_compiler
from synth_core.validation.sample import Sample


@dataclass(frozen=True)
class Trusted:
    """What a prover is forked with. compiler: of C++; none on a GPU. visible: its CUDA_VISIBLE_DEVICES."""

    compiler: Compiler | None
    readable: tuple[str, ...]
    visible: str | None = None

    def serve(self, channel: socket.socket) -> None:
        """The life of a prover."""
        if self.compiler is None:
            _show_gpu(self.visible)
        serving.serve(channel, prove_eager, partial(compiled.prove, compiler=self.compiler))


def prepare(cache: str, device: str, visible: str | None) -> Trusted:
    """Warm this process up; raise EnvironmentFault without a C++ compiler, UsageError without a GPU."""
    inductor.configure()
    if device == "cuda":
        return Trusted(None, (), visible)
    strides.quicken()
    compiler = find_compiler(f"{cache}/headers")
    sample, inputs = Sample().eval(), [torch.randn(2, 3, 8, 8)]
    with torch.no_grad():
        found = capture(sample, inputs)
        inductor.generate(rebuild(found.record, found.tensors), arguments(found.record, found.tensors))
    return Trusted(compiler, compiler.readable)


def prove_eager(request: eager.Request, evidences: Sequence[Evidence]) -> Judgement:
    """The judgement of the eager stage."""
    running.quiet_torch(exact=False)
    skip = frozenset(request["skip"])
    return decide.decide(
        request,
        Stage.VALIDATE_EAGER,
        lambda: case.read(evidences),
        lambda found: eager.run(request, found, skip),
    )


def _show_gpu(visible: str | None) -> None:
    """The process that forked this one hid the GPU from itself: with a CUDA context it could not fork."""
    if visible is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here; use --device cpu")
