"""Inside a confined worker that serves programs on a GPU, one after another.

It warms up by compiling one small program (a CUDA context and a cold Triton cost seconds) and says how many
MiB of memory its GPU has: then it is ready.
An order names a stage and a request; the evidence goes into files that came with it. It says DONE when it is
fit for the next, POISONED when its CUDA context no longer works: a bad access of one program makes every
later call of that process fail.
"""

from __future__ import annotations

import gc
import json
import os
import socket
from typing import Any, Final

import torch

from synth_core.records import Stage
from synth_core.validation.evidence import EvidenceWriter
from synth_core.validation.inside import probe, warm
from synth_core.validation.inside.loading import give_back_memory
from synth_core.validation.sandbox.process import CHANNEL

DONE: Final = b"+"
ONCE: Final = b"1"
"""The first of two runs is over: what it held is free again."""
POISONED: Final = b"!"
ORDER: Final = b"job!"
SAMPLE: Final = 2**18
"""Elements of an output that are looked at: full-size ones would fill the memory with copies in fp64, and a
judge, who serves several workers, takes 8 times as long over four times as many (0.31 against 0.04 s)."""


def serve(device: str) -> None:
    """Run what comes until the channel closes or the context is poisoned."""
    if device == "cuda":
        warm.compile_sample(device)
    gc.collect()
    gc.freeze()
    channel = socket.socket(fileno=CHANNEL)
    channel.sendall(b"%d" % memory_mb(device))
    while True:
        tag, files, _, _ = socket.recv_fds(channel, len(ORDER), 8)
        if not tag:
            return
        order, *evidence = files
        job = json.loads(os.pread(order, os.fstat(order).st_size, 0))
        os.close(order)
        if torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(job["share"])
        _run(job, evidence, channel)
        channel.sendall(DONE if _clean() else POISONED)


def memory_mb(device: str) -> int:
    """MiB of memory of the device, whoever uses it."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1] >> 20
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def _run(job: dict[str, Any], evidence: list[int], channel: socket.socket) -> None:
    brief = job["stage"] == Stage.VALIDATE_COMPILE
    request = {**job["request"], "brief": brief, "most": SAMPLE, "last": job["last"]}
    for number, (file, run) in enumerate(zip(evidence, (probe.run_eager, probe.run_compiled), strict=False)):
        if number:
            channel.sendall(ONCE)
        with os.fdopen(file, "wb") as stream:
            writer = EvidenceWriter(stream)
            run(request, writer)
            writer.end()
        give_back_memory()


def _clean() -> bool:
    """Free what the program left; False where the CUDA context no longer works."""
    try:
        torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            give_back_memory()
            return bool((torch.ones(8, device="cuda") * 2).sum().item() == 16)
    except RuntimeError:
        return False
    return True
