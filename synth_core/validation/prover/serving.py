"""A prover's loop: take cases from the supervisor, and write each judgement into the file that came with it.

A message is a line of JSON with four files for each case. The JSON is a list with one object per case. The
files are for the judgement, for the question of the engine, and the two that the child wrote. Answers are
bytes. READY comes first. STEP plus the number of a case means that the prover turns to this case; STEP plus
TOGETHER means that it works on all. The number of a case alone means that its judgement is written. So no
text passes through the memory of the supervisor, which every child inherits.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from synth_core.errors import UsageError
from synth_core.records import Category, Stage
from synth_core.validation.ends import failure
from synth_core.validation.evidence import Evidence, Observation
from synth_core.validation.prover import cxx, inductor, worker
from synth_core.validation.sandbox.files import contents
from synth_core.validation.sandbox.process import CHANNEL

STEP: Final = 128
TOGETHER: Final = 127
READY: Final = 126
_FILES_EACH: Final = 4
_MOST_FILES: Final = 64
_MAX_QUESTION: Final = 2**24
_MAX_JUDGEMENT: Final = 32 * 2**20
_STAGES: Final = {Stage.VALIDATE_EAGER.value: "eager", Stage.VALIDATE_COMPILE.value: "compile"}


@dataclass(frozen=True)
class Trusted:
    """What provers are forked with. compiler: of C++; none on a GPU.

    gpu: a file that provers lock while they use the GPU's memory. visible: CUDA_VISIBLE_DEVICES for them.
    """

    compiler: cxx.Compiler | None
    gpu: str = ""
    visible: str | None = None

    def start(self) -> None:
        """The life of a prover in a new fork. A prover for the GPU becomes a new Python first.

        A fork of a process that has looked for a GPU cannot use one.
        """
        if self.compiler:
            self.serve()
            return
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[3])
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if self.visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.visible
        os.execv(sys.executable, [sys.executable, "-P", "-m", __name__, self.gpu])

    def serve(self) -> None:
        """Answer until the channel closes."""
        channel = socket.socket(fileno=CHANNEL)
        torch.set_num_threads(1)
        gc.collect()
        gc.freeze()
        gc.disable()  # after each batch memory is freed anyway; a search in between finds nothing
        channel.sendall(bytes([READY]))
        while True:
            line, files, _, _ = socket.recv_fds(channel, 2**16, _MOST_FILES)
            if not line:
                return
            try:
                self._prove(json.loads(line), files, channel)
            finally:
                for file in files:
                    os.close(file)
            inductor.forget()
            gc.collect()

    def _prove(self, heads: Sequence[dict[str, Any]], files: Sequence[int], channel: socket.socket) -> None:
        groups = [files[at : at + _FILES_EACH] for at in range(0, len(files), _FILES_EACH)]
        again: list[int] = []

        def say(answer: dict[str, Any], alone: bool = False) -> None:
            judgement = answer.get("judgement")
            if judgement is None:
                channel.sendall(bytes([STEP + (TOGETHER if answer["step"] == "build" else answer["at"])]))
            elif self.gpu and not alone and judgement.get("category") == Category.OUT_OF_MEMORY:
                again.append(answer["id"])
            else:
                _write(groups[answer["id"]][0], judgement)
                channel.sendall(bytes([answer["id"]]))

        def prove(numbers: Sequence[int], say: Callable[[dict[str, Any]], None]) -> None:
            worker.Prover(self.compiler, say).prove([_job(n, heads[n], groups[n]) for n in numbers])

        with _memory(self.gpu, fcntl.LOCK_SH):
            prove(range(len(heads)), say)
        if again:  # other provers may have used the memory
            with _memory(self.gpu, fcntl.LOCK_EX):
                prove(again, partial(say, alone=True))


@contextlib.contextmanager
def _memory(gpu: str, lock: int) -> Iterator[None]:
    """Hold the lock on the memory of the GPU, shared or exclusive, and free that memory afterwards."""
    if not gpu:
        yield
        return
    with open(gpu) as file:
        fcntl.flock(file, lock)
        try:
            yield
        finally:
            gc.collect()
            torch.cuda.empty_cache()


def prepare(cache: str, device: str, visible: str | None) -> Trusted:
    """Warm up this process, from which provers are forked. Raises EnvironmentFault without a C++ compiler."""
    if device == "cpu":
        return Trusted(worker.warm(f"{cache}/headers"))
    Path(f"{cache}/headers/gpu").touch(0o644)
    return Trusted(None, f"{cache}/headers/gpu", visible)


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


def main(gpu: str) -> None:
    """Prove on a GPU. Raises UsageError where torch sees none."""
    if not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here; use --device cpu")
    torch.zeros(1, device="cuda")  # opens the context
    inductor.configure()
    Trusted(None, gpu).serve()


if __name__ == "__main__":
    main(sys.argv[1])
