"""Programs on a GPU: long-lived confined workers that keep a CUDA context and a warm Triton.

A context costs seconds, so a worker serves several programs, and one of them could tamper with what the
next one says. Hence only programs enter whose text a forked, confined CPU process has executed to its end
(vetting.py); verdicts say `shared_worker`; a seeded sample is judged again in a fresh worker; and a worker is
replaced after a crash, a timeout, a poisoned context or `PROGRAMS_EACH` programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

from synth_core.errors import EnvironmentFault
from synth_core.validation.evidence import Observation
from synth_core.validation.inside.serving import DONE, ONCE, ORDER, serve
from synth_core.validation.sandbox import process
from synth_core.validation.sandbox.confine import Limits, Sandbox
from synth_core.validation.sandbox.process import Process, anonymous_file
from synth_core.validation.sandbox.seccomp import Profile
from synth_core.validation.supervisor.units import toolchain

if TYPE_CHECKING:
    from synth_core.validation.supervisor.job import Job

PROGRAMS_EACH: Final = 200
"""Programs a worker serves; each leaves about 3.3 MB behind (measured)."""
HOST_MB: Final = 65536
"""Host memory of a worker: a CUDA context and pinned buffers count as private memory."""
START_SECONDS: Final = 300.0
"""A worker that is not ready by then is dead: context, Triton and one compile take 10 to 20 s, all cold."""
CONTEXT_MB: Final = 600
"""Memory of the GPU that a worker's context and libraries take (measured: 520 on an H100)."""
WHOLE: Final = 0.97
"""Share of the GPU's memory that contexts and programs may take together."""
UNKNOWN: Final = 0.2
"""Share of a program of which nobody knows what it needs. One that finds no memory left, or has used up its
own, is tried again with the GPU to itself."""
SLACK: Final = 1.25
"""How far above what it was thought to need a program may go: freed blocks do not fit together."""
LEAST: Final = 0.08
"""Share that a program may have however little it seemed to need."""
PATIENCE: Final = 10.0
"""Seconds that a program which needs much lets those with less pass."""
_FAILED_STARTS: Final = 3
_FIRST_SLOT: Final = 300

Finished = Callable[["Job", list[tuple[int, Observation]]], None]


@dataclass(eq=False)
class _Worker:
    process: Process
    channel: socket.socket
    ready: bool = False
    job: Job | None = None
    evidence: tuple[int, ...] = ()
    since: float = 0.0
    served: int = 0
    retired: bool = False
    """It takes no further program."""

    @property
    def free(self) -> bool:
        return self.ready and not self.job and not self.retired

    @property
    def fresh(self) -> bool:
        """It has served none, or will have when it is ready."""
        return not (self.served or self.job or self.retired)

    def retire(self) -> None:
        self.retired = True
        self.process.kill()


class GpuWorkers:
    """The workers and the jobs that wait for one. `finished` gets a job's evidence, open."""

    def __init__(self, box: Sandbox, workers: int, finished: Finished, device: str = "cuda") -> None:
        self._box, self._most, self._finished, self._device = box, workers, finished, device
        self._queue: list[Job] = []
        self._workers: dict[int, _Worker] = {}
        self._slots = list(range(_FIRST_SLOT, _FIRST_SLOT + 2 * workers))
        self._failed_starts = 0
        self._readable: tuple[str, ...] = ()
        self._memory_mb = 0

    @property
    def idle(self) -> bool:
        return not self._queue and not any(worker.job for worker in self._workers.values())

    def prove(self) -> None:
        """Start the first worker and wait for it; raise EnvironmentFault where none can live here."""
        compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")  # Triton's choice
        self._readable = toolchain(compiler) if compiler else ()
        worker = self._start()
        worker.channel.settimeout(START_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            self._memory_mb = int(worker.channel.recv(64))
            worker.ready = True
        if not worker.ready:
            worker.process.kill()
            _, status = os.waitpid(worker.process.pid, 0)
            raise EnvironmentFault(_no_start(worker.process.reaped(status)))
        worker.channel.settimeout(None)
        worker.process.deadline = inf

    def submit(self, job: Job) -> None:
        job.queued = time.monotonic()
        self._queue.append(job)

    def watched(self) -> dict[int, Callable[[], object]]:
        calls: dict[int, Callable[[], object]] = {}
        for worker in self._workers.values():
            calls[worker.process.output] = worker.process.drain
            if worker.job or not worker.ready:
                calls[worker.channel.fileno()] = partial(self._listen, worker)
        return calls

    def advance(self, now: float) -> None:
        """Watch limits, hand out waiting jobs, start workers where there is work for them."""
        for worker in self._workers.values():
            worker.process.watch(now)
        if self._has_free():
            for job in sorted(self._queue, key=lambda job: self._turn(job, now)):
                if place := self._place(job):
                    self._queue.remove(job)
                    self._hand(place, job)
                elif not self._fits(job) and (job.whole or now - job.queued > PATIENCE):
                    break  # nothing starts that would keep it waiting
                if not self._has_free():
                    break
        self._staff()

    def _has_free(self) -> bool:
        return any(worker.free for worker in self._workers.values())

    @property
    def _wants_fresh(self) -> bool:
        return any(job.alone for job in self._queue)

    def _turn(self, job: Job, now: float) -> tuple[bool, float, float]:
        """Those that want a fresh worker, or the GPU to themselves, come first, then those that have waited
        long, then those that need much memory: what is left of it fills up with the others."""
        overdue = now - job.queued > PATIENCE
        return not (job.alone or job.whole), job.queued if overdue else inf, -self._promised_mb(job)

    def _staff(self) -> None:
        """Start workers where there is work for them; one too many where a fresh one is wanted, until it is
        no longer fresh."""
        alive = [worker for worker in self._workers.values() if not worker.retired]
        starting = sum(not worker.ready for worker in alive)
        missing = min(len(self._queue) - starting, self._most - len(alive))
        if self._wants_fresh:
            missing = max(missing, 0 if any(worker.fresh for worker in alive) else 1)
        for _ in range(min(missing, len(self._slots))):
            self._start()
        used = [worker for worker in alive if worker.free and worker.served]
        if len(alive) > self._most and used and not self._wants_fresh:
            max(used, key=lambda worker: worker.served).retire()

    def ended(self, pid: int, status: int) -> bool:
        """Deal with a dead worker; False if that process was none. Its death is its program's verdict.

        Raises EnvironmentFault where workers die before they are ready, again and again.
        """
        worker = self._workers.pop(pid, None)
        if worker is None:
            return False
        observed = worker.process.reaped(status)
        worker.channel.close()
        shutil.rmtree(f"{self._box.scratch}/{Profile.WORKER}-{worker.process.slot}", ignore_errors=True)
        self._slots.append(worker.process.slot)
        if worker.job:
            if observed.exit_code == 0:  # it left in the middle of a program
                observed = replace(observed, exit_code=1)
            self._deliver(worker, observed)
        elif not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                raise EnvironmentFault(_no_start(observed))
        return True

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.kill()

    def _place(self, job: Job) -> _Worker | None:
        """The worker that may take the job now."""
        busy = sum(worker.job is not None for worker in self._workers.values())
        if busy >= self._most or not self._fits(job):
            return None
        free = sorted((w for w in self._workers.values() if w.free), key=lambda worker: -worker.served)
        if job.alone:
            free = [worker for worker in free if worker.fresh]
        elif free and free[-1].fresh and self._wants_fresh:
            free.pop()
        return free[0] if free else None

    def _fits(self, job: Job) -> bool:
        """There is memory for it beside what runs; nothing runs beside one that is to have it all."""
        busy = [worker.job for worker in self._workers.values() if worker.job]
        if busy and (job.whole or any(other.whole for other in busy)):
            return False
        return not busy or sum(map(self._promised_mb, [*busy, job])) <= self._room_mb

    @property
    def _room_mb(self) -> float:
        return max(0.0, WHOLE * self._memory_mb - CONTEXT_MB * (self._most + 1))

    def _promised_mb(self, job: Job) -> float:
        known = job.memory_mb if job.memory_mb > 0 else UNKNOWN * self._memory_mb
        return min(known, self._room_mb)

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        limits = Limits(
            10**6, HOST_MB, process.data_kb(os.getpid()), process.resident_kb(os.getpid()),
            files=4096, processes=1024,
        )  # fmt: skip
        started = process.start(
            self._box,
            Profile.WORKER,
            limits,
            self._slots.pop(),
            partial(serve, self._device),
            channel=theirs.fileno(),
            readable=self._readable,
        )
        theirs.close()
        started.deadline = started.started + START_SECONDS
        worker = self._workers[started.pid] = _Worker(started, ours)
        return worker

    def _hand(self, worker: _Worker, job: Job) -> None:
        share = WHOLE
        if not job.whole and self._memory_mb:
            share = min(WHOLE, max(LEAST, SLACK * self._promised_mb(job) / self._memory_mb))
        asked = {"stage": job.stage, "request": job.request, "share": share, "last": job.whole}
        order = anonymous_file("order")
        with os.fdopen(os.dup(order), "wb") as file:
            file.write(json.dumps(asked).encode())
        runs = 2 if job.compiles else 1
        worker.job, worker.evidence = job, tuple(anonymous_file("evidence") for _ in range(runs))
        worker.since = time.monotonic()
        worker.process.deadline = worker.since + job.limits.seconds
        job.shared = worker.served > 0
        with contextlib.suppress(OSError):  # a worker that has just died is noticed by its end
            socket.send_fds(worker.channel, [ORDER], [order, *worker.evidence])
        os.close(order)

    def _listen(self, worker: _Worker) -> None:
        try:
            said = worker.channel.recv(64)
        except OSError:
            said = b""
        if not said:
            return  # it is dead; `ended` will say of what
        if worker.job and said.startswith(ONCE):
            worker.job.memory_mb = worker.job.later_mb
            said = said.removeprefix(ONCE)
            if not said:
                return
        worker.process.deadline = inf
        if not worker.ready:
            worker.ready, self._failed_starts = True, 0
            return
        worker.served += 1
        if said != DONE or worker.served >= PROGRAMS_EACH:
            worker.retire()
        self._deliver(worker, Observation(exit_code=0, seconds=time.monotonic() - worker.since))

    def _deliver(self, worker: _Worker, observed: Observation) -> None:
        job, evidence = worker.job, worker.evidence
        worker.job, worker.evidence = None, ()
        assert job is not None
        self._finished(job, [(file, observed) for file in evidence])


def _no_start(observed: Observation) -> str:
    words = observed.output.strip() or f"it ended with {observed.exit_code}, {observed.signal}, and no word"
    return f"a GPU worker does not start: {words}"
