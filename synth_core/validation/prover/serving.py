"""A prover's loop: take cases from the supervisor, and write each judgement into the file that came with it.

A message is a line of JSON, a list with one object for each case, and four files for each: the judgement's,
the engine's question, and the two that the program's process has written. Answers are bytes: STEP plus the
number of the case that the prover turns to (TOGETHER where it works on all), and the number of a case when
its judgement is written. So no text passes through the supervisor's memory, which every program inherits.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from synth_core.errors import UsageError
from synth_core.records import Category, Stage
from synth_core.validation.ends import failure
from synth_core.validation.evidence import Evidence, Observation
from synth_core.validation.prover import cxx, inductor, worker
from synth_core.validation.sandbox.files import contents

STEP: Final = 128
TOGETHER: Final = 127
_FILES_EACH: Final = 4
_MOST_FILES: Final = 64
_MAX_QUESTION: Final = 2**24
_MAX_JUDGEMENT: Final = 32 * 2**20
_STAGES: Final = {Stage.VALIDATE_EAGER.value: "eager", Stage.VALIDATE_COMPILE.value: "compile"}


@dataclass(frozen=True)
class Trusted:
    """What provers are forked with. compiler: of C++; none on a GPU. visible: CUDA_VISIBLE_DEVICES there."""

    compiler: cxx.Compiler | None
    visible: str | None = None

    def serve(self, channel: socket.socket) -> None:
        """The life of a prover, until the channel closes."""
        torch.set_num_threads(1)
        if self.compiler is None:
            _show_gpu(self.visible)
        gc.collect()
        gc.freeze()
        gc.disable()  # a batch's graphs are freed at its end; looking for more in between finds nothing
        while True:
            line, files, _, _ = socket.recv_fds(channel, 2**16, _MOST_FILES)
            if not line:
                return
            try:
                _prove(json.loads(line), files, channel, self.compiler)
            finally:
                for file in files:
                    os.close(file)
            inductor.forget()
            gc.collect()


def prepare(cache: str, device: str, visible: str | None) -> Trusted:
    """Warm this process up for provers to be forked; raise EnvironmentFault without a C++ compiler."""
    if device == "cpu":
        return Trusted(worker.warm(f"{cache}/headers"))
    inductor.configure()
    return Trusted(None, visible)


def _show_gpu(visible: str | None) -> None:
    """The process that forked this one hid the GPU from itself: with a CUDA context it could not fork."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here; use --device cpu")


def _prove(
    heads: Sequence[dict[str, Any]],
    files: Sequence[int],
    channel: socket.socket,
    compiler: cxx.Compiler | None,
) -> None:
    groups = [files[at : at + _FILES_EACH] for at in range(0, len(files), _FILES_EACH)]
    jobs = [_job(number, head, groups[number]) for number, head in enumerate(heads)]

    def say(answer: dict[str, Any]) -> None:
        if "judgement" in answer:
            _write(groups[answer["id"]][0], answer["judgement"])
            channel.sendall(bytes([answer["id"]]))
        else:
            channel.sendall(bytes([STEP + (TOGETHER if answer["step"] == "build" else answer["at"])]))

    worker.Prover(compiler, say).prove(jobs)


def _job(number: int, head: dict[str, Any], files: Sequence[int]) -> worker.Job:
    request = json.loads(contents(files[1], _MAX_QUESTION)) | {"draw_seed": head["seed"]}
    streams = [_evidence(file) for file in files[2:]]
    if digests := request.get("repeated"):
        streams.append(Evidence(Observation(exit_code=0), True, {}, {"digests": digests}))
    return worker.Job(id=number, stages=[_STAGES[head["stage"]]], request=request, streams=streams)


def _evidence(file: int) -> Evidence:
    size = os.fstat(file).st_size
    data = memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_COPY)) if size else bytearray()
    return Evidence.read(data, Observation(exit_code=0))


def _write(file: int, judgement: dict[str, Any]) -> None:
    data = json.dumps(judgement).encode()
    if len(data) > _MAX_JUDGEMENT:
        large = failure(Category.CRASH, "its graph is too large to be kept", check="prover")
        data = json.dumps(large).encode()
    at = 0
    while at < len(data):
        at += os.pwrite(file, data[at:], at)
