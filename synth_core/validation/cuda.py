"""Programs on a GPU: long-lived confined workers that keep a CUDA context and a warm Triton.

A context costs seconds, so a worker serves several programs, and one of them could tamper with what the
next one says. Hence only programs enter whose text a forked, confined CPU process has executed to its end
(`vet`); verdicts say `shared_worker`; a seeded sample is judged again in a fresh worker; and a worker is
replaced after a crash, a timeout, a poisoned context or `PROGRAMS_EACH` programs.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from synth_core.validation.evidence import EvidenceWriter, Observation
from synth_core.validation.sandbox import process
from synth_core.validation.sandbox.confine import Limits, Sandbox
from synth_core.validation.sandbox.process import CHANNEL, Process, anonymous_file
from synth_core.validation.sandbox.seccomp import Profile

if TYPE_CHECKING:
    from synth_core.validation.scheduler import Job

PROGRAMS_EACH: Final = 200
"""Programs a worker serves; each leaves about 3.3 MB behind (measured)."""
HOST_MB: Final = 65536
"""Host memory of a worker: a CUDA context and pinned buffers count as private memory."""
SAMPLE: Final = 2**20
"""Elements of one tensor that go into the evidence; of a larger one every k-th along its longest axes."""
_FIRST_SLOT: Final = 300
_ORDER: Final = b"job!"
_DONE, _POISONED = b"+", b"!"

Finished = Callable[["Job", list[tuple[int, Observation]]], None]


@dataclass(eq=False)
class _Worker:
    process: Process
    channel: socket.socket
    job: Job | None = None
    evidence: tuple[int, ...] = ()
    since: float = 0.0
    served: int = 0
    retired: bool = False
    """It takes no further program."""


class Pool:
    """The workers and the jobs that wait for one. `finished` gets a job's evidence, open."""

    def __init__(self, box: Sandbox, workers: int, finished: Finished) -> None:
        self._box, self._most, self._finished = box, workers, finished
        self._queue: deque[Job] = deque()
        self._workers: dict[int, _Worker] = {}
        self._slots = list(range(_FIRST_SLOT, _FIRST_SLOT + 2 * workers))

    @property
    def idle(self) -> bool:
        return not self._queue and not any(worker.job for worker in self._workers.values())

    def submit(self, job: Job) -> None:
        self._queue.append(job)

    def watched(self) -> dict[int, Callable[[], object]]:
        calls: dict[int, Callable[[], object]] = {}
        for worker in self._workers.values():
            calls[worker.process.output] = worker.process.drain
            if worker.job:
                calls[worker.channel.fileno()] = lambda w=worker: self._listen(w)  # type: ignore[misc]
        return calls

    def advance(self, now: float) -> None:
        """Watch limits, hand out waiting jobs, start workers where there is work for them."""
        for worker in self._workers.values():
            worker.process.watch(now)
        while self._queue and (free := self._free(self._queue[0].alone)):
            self._hand(free, self._queue.popleft())

    def ended(self, pid: int, status: int) -> bool:
        """Deal with a dead worker; False if that process was none. Its death is its program's verdict."""
        worker = self._workers.pop(pid, None)
        if worker is None:
            return False
        observed = worker.process.reaped(status)
        worker.channel.close()
        self._slots.append(worker.process.slot)
        if worker.job:
            if observed.exit_code == 0:  # it left in the middle of a program
                observed = replace(observed, exit_code=1)
            self._deliver(worker, observed)
        return True

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.kill()

    def _free(self, fresh: bool) -> _Worker | None:
        """A worker without a program, started if need be; `fresh`: one that has served none."""
        free = [w for w in self._workers.values() if not w.job and not w.retired]
        for worker in free:
            if not (fresh and worker.served):
                return worker
        if free and len(self._workers) >= self._most:  # fresh is wanted: one of them makes room
            free[0].retired = True
            free[0].process.kill()
        return self._start() if len(self._workers) < self._most and self._slots else None

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        limits = Limits(10**6, HOST_MB, process.data_kb(os.getpid()), process.resident_kb(os.getpid()), 4096)
        share = max(0.95 / self._most, 0.2)
        started = process.start(
            self._box,
            Profile.WORKER,
            limits,
            self._slots.pop(),
            lambda: _serve(share),
            channel=theirs.fileno(),
        )
        theirs.close()
        worker = self._workers[started.pid] = _Worker(started, ours)
        return worker

    def _hand(self, worker: _Worker, job: Job) -> None:
        order = anonymous_file("order")
        with os.fdopen(os.dup(order), "wb") as file:
            file.write(json.dumps({"stage": job.stage, "request": job.request}).encode())
        runs = 2 if job.compiles else 1
        worker.job, worker.evidence = job, tuple(anonymous_file("evidence") for _ in range(runs))
        worker.since = time.monotonic()
        worker.process.deadline = worker.since + job.limits.seconds
        job.shared = worker.served > 0
        with contextlib.suppress(OSError):  # a worker that has just died is noticed by its end
            socket.send_fds(worker.channel, [_ORDER], [order, *worker.evidence])
        os.close(order)

    def _listen(self, worker: _Worker) -> None:
        try:
            said = worker.channel.recv(64)
        except OSError:
            said = b""
        if not said:
            return  # it is dead; `ended` will say of what
        worker.served += 1
        self._deliver(worker, Observation(exit_code=0, seconds=time.monotonic() - worker.since))
        worker.process.deadline = float("inf")
        if said != _DONE or worker.served >= PROGRAMS_EACH or worker.retired:
            worker.retired = True
            worker.process.kill()

    def _deliver(self, worker: _Worker, observed: Observation) -> None:
        job, evidence = worker.job, worker.evidence
        worker.job, worker.evidence = None, ()
        assert job is not None
        worker.retired |= job.alone
        self._finished(job, [(file, observed) for file in evidence])


def vet(request: dict[str, Any], device: str, out: EvidenceWriter) -> None:
    """Inside a forked, confined process: execute the whole program once, on shapes alone or on the CPU.

    device: `meta` costs milliseconds whatever the size; what it cannot do (values that steer the program)
    the caller tries again on `cpu`.
    """
    from synth_core.validation import probe

    skip = [*request["skip"], "reference", "compiled_reference"]
    with torch.device(device):
        probe.run_eager({**request, "device": device, "brief": True, "skip": skip}, _Shapes(out))


class _Shapes(EvidenceWriter):
    """Evidence of a run that computed no values."""

    def __init__(self, out: EvidenceWriter) -> None:
        self._out = out

    def tensor(self, name: str, tensor: torch.Tensor) -> None:
        self._out.json(name, list(tensor.shape))

    def json(self, name: str, value: Any) -> None:
        self._out.json(name, value)


class _Sampled(EvidenceWriter):
    """Evidence of full-size runs: a regular sample of large tensors, which keeps their axes.

    A value that is not finite anywhere shows in the sample.
    """

    def tensor(self, name: str, tensor: torch.Tensor) -> None:
        super().tensor(name, tensor if tensor.numel() <= SAMPLE else _thinned(tensor.detach()))


def _thinned(tensor: torch.Tensor) -> torch.Tensor:
    sample = tensor
    while sample.numel() > SAMPLE:
        axis = max(range(sample.dim()), key=lambda d: sample.shape[d])
        steps = [slice(None)] * sample.dim()
        steps[axis] = slice(None, None, 2)
        sample = sample[tuple(steps)]
    sample = sample.clone()
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        sample.view(-1)[0] = float("nan")
    return sample


def _serve(share: float) -> None:
    """Inside a worker: run what comes until the channel closes or the context is poisoned."""
    from synth_core.records import Stage
    from synth_core.validation import kernels, probe

    kernels.compile_here()
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)
    channel = socket.socket(fileno=CHANNEL)
    while True:
        tag, files, _, _ = socket.recv_fds(channel, len(_ORDER), 8)
        if not tag:
            return
        order, *evidence = files
        job = json.loads(os.pread(order, os.fstat(order).st_size, 0))
        brief = job["stage"] == Stage.VALIDATE_COMPILE
        for file, run in zip(evidence, (probe.run_eager, probe.run_compiled), strict=False):
            with os.fdopen(file, "wb") as stream:
                writer = _Sampled(stream)
                run({**job["request"], "brief": brief}, writer)
                writer.end()
        os.close(order)
        channel.sendall(_DONE if _cleaned() else _POISONED)


def _cleaned() -> bool:
    """Free what the program left; False where the CUDA context no longer works."""
    torch._dynamo.reset()
    gc.collect()
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            return bool((torch.ones(8, device="cuda") * 2).sum().item() == 16)
    except RuntimeError:
        return False
    return True
