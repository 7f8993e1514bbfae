"""The provers as their supervisor sees them: long-lived trusted processes with limits of time and memory.

A prover holds no foreign code. It gets cases. A case is what a dead child wrote, with a question of the
engine. The judgement goes into a file that the engine reads; the supervisor never reads it. If a prover dies
or passes its limits, that is the verdict of the case that it worked on. Its other cases go to another prover.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

from synth_core.errors import EnvironmentFault, UsageError
from synth_core.records import Stage
from synth_core.validation.prover.serving import READY, STEP, TOGETHER, Trusted
from synth_core.validation.sandbox import process, usage
from synth_core.validation.sandbox.confine import Limits, Sandbox
from synth_core.validation.sandbox.files import anonymous_file
from synth_core.validation.sandbox.process import Process
from synth_core.validation.sandbox.seccomp import Profile
from synth_core.validation.supervisor.job import Job

BATCH: Final = 8
"""How many programs are compiled as one C++ unit. To load the header costs 0.35 CPU seconds per unit."""
MEMORY_MB: Final = {"cpu": 4096, "cuda": 65536}
"""What a prover may take in addition to the memory limit of a program: for copies in double precision and the
compiler, or for a CUDA context and pinned buffers."""
CASES_EACH: Final = 400
"""A prover is replaced after so many cases: each leaves about 3 MB behind (measured)."""
START_SECONDS: Final = 300.0
"""A prover that is not ready after this time never will be: a CUDA context takes 10 s at first."""
_FIRST_SLOT: Final = 300


@dataclass(eq=False)
class _Prover:
    process: Process
    channel: socket.socket
    cases: dict[int, tuple[Job, int]] = field(default_factory=dict)
    """Position in the message -> the job, and the file for its judgement."""
    at: int = TOGETHER
    """The case that it works on."""
    ready: bool = False
    began: bool = False
    """It has said that it works on its cases."""
    served: int = 0
    retired: bool = False

    def spend(self) -> None:
        """Add the time since the last step to the case that it works on, or share it among all cases."""
        one = self.cases.get(self.at)
        jobs = [one[0]] if one else [job for job, _ in self.cases.values()]
        for job in jobs:
            job.seconds += (time.monotonic() - self.process.started) / len(jobs)


class Provers:
    """done: takes a job, the fields of its answer and a file. readable: what the compiler reads."""

    def __init__(
        self,
        box: Sandbox,
        limits: Limits,
        trusted: Trusted,
        done: Callable[[Job, dict[str, Any], int], None],
        readable: tuple[str, ...] = (),
        device: str = "cpu",
    ) -> None:
        self._box, self._limits, self._trusted, self._done = box, limits, trusted, done
        self._readable, self._device = readable, device
        self._profile = Profile.GPU_PROVER if device == "cuda" else Profile.PROVER
        self._waiting: deque[Job] = deque()
        self._provers: dict[int, _Prover] = {}
        self._slots = list(range(_FIRST_SLOT, _FIRST_SLOT + 300))

    def prove(self) -> None:
        """Start the first prover and wait until it is ready. Raises EnvironmentFault if none can start."""
        prover = self._fork()
        prover.channel.settimeout(START_SECONDS)
        with contextlib.suppress(OSError):
            if prover.channel.recv(1) == bytes([READY]):
                prover.channel.settimeout(None)
                prover.ready = True
                return
        prover.process.kill()
        os.waitpid(prover.process.pid, 0)
        prover.process.drain()
        words = prover.process.last_words().decode(errors="replace").strip().splitlines() or [""]
        kind, _, message = words[-1].partition(": ")
        if kind.endswith(UsageError.__name__):
            raise UsageError(message)
        raise EnvironmentFault(f"no process that proves programs starts here: {words[-1]}")

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> int:
        return sum(bool(prover.cases) for prover in self._provers.values())

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def watched(self) -> dict[int, Callable[[], object]]:
        calls: dict[int, Callable[[], object]] = {}
        for prover in self._provers.values():
            calls[prover.process.output] = prover.process.drain
            calls[prover.channel.fileno()] = partial(self._listen, prover)
        return calls

    def watch(self, now: float) -> None:
        for prover in self._provers.values():
            prover.process.waits = not prover.cases
            prover.process.watch(now)

    def start(self, hurry: bool) -> bool:
        """Give waiting cases to a prover; False if it is better to wait for more cases.

        hurry: no more cases will come soon.
        """
        batch = self._batch(hurry)
        if not batch:
            return False
        idle = [prover for prover in self._provers.values() if not (prover.cases or prover.retired)]
        prover = idle[0] if idle else self._fork()
        self._hand(prover, batch)
        return True

    def _batch(self, hurry: bool) -> list[Job]:
        """The cases to prove together. Cases that compile wait until they are several; others go at once."""
        quick = [job for job in self._waiting if job.alone or job.stage != Stage.VALIDATE_COMPILE][:1]
        compiling = [job for job in self._waiting if job not in quick and job.stage == Stage.VALIDATE_COMPILE]
        batch = quick or (compiling[:BATCH] if hurry or len(compiling) >= BATCH else [])
        for job in batch:
            self._waiting.remove(job)
        return batch

    def _hand(self, prover: _Prover, batch: Sequence[Job]) -> None:
        files, cases = [], []
        for number, job in enumerate(batch):
            judgement = anonymous_file("judgement")
            files += [judgement, job.question, *job.evidence]
            cases.append({"stage": job.stage, "seed": job.seed})
            prover.cases[number] = (job, judgement)
        prover.at, prover.began = TOGETHER, False
        prover.process.restart(self._limits.seconds if prover.ready else START_SECONDS)
        with contextlib.suppress(OSError):  # if it has just died, its end is noticed elsewhere
            socket.send_fds(prover.channel, [json.dumps(cases).encode() + b"\n"], files)

    def _listen(self, prover: _Prover) -> None:
        """Read bytes: the prover turns to a case, and its time counts from zero; or a case is done."""
        with contextlib.suppress(OSError):
            for said in prover.channel.recv(4096):
                if said == READY:
                    prover.ready = True
                    continue
                job, judgement = prover.cases.get(said % STEP, (None, -1))
                prover.began = True
                if said >= STEP:
                    prover.at = said - STEP
                    prover.spend()
                    prover.process.restart(self._limits.seconds)
                elif job:
                    prover.spend()
                    del prover.cases[said]
                    prover.served += 1
                    self._done(job, {"judged": True}, judgement)
        if not prover.cases and prover.served >= CASES_EACH:
            prover.retired = True
            prover.process.kill()

    def ended(self, pid: int, status: int) -> None:
        """A dead prover: its end is the verdict of the case that it worked on. The others wait again.

        If it died before it began, no case is blamed the first time.
        """
        prover = self._provers.pop(pid, None)
        if prover is None:
            return
        self._listen(prover)
        observed = prover.process.reaped(status)
        prover.channel.close()
        self._slots.append(prover.process.slot)
        guilty = prover.at if prover.at in prover.cases else next(iter(prover.cases), TOGETHER)
        for number, (job, judgement) in prover.cases.items():
            os.close(judgement)
            blamed = number == guilty and (prover.at != TOGETHER or len(prover.cases) == 1)
            if blamed and (prover.began or job.alone):
                words = anonymous_file("words", prover.process.last_words())
                self._done(job, {"prover": True, "observed": asdict(observed)}, words)
            else:
                job.alone = job.alone or prover.at == TOGETHER
                self._waiting.append(job)

    def close(self) -> None:
        for prover in self._provers.values():
            prover.process.kill()

    def _fork(self) -> _Prover:
        ours, theirs = socket.socketpair()
        me = os.getpid()
        limits = replace(
            self._limits,
            data_mb=self._limits.data_mb + MEMORY_MB[self._device],
            born_kb=usage.data_kb(me),
            born_resident_kb=usage.resident_kb(me),
            files=4096,
            processes=64 if self._device == "cpu" else 1024,
        )
        started = process.start(
            self._box, self._profile, limits, self._slots.pop(), self._body, files=(None, theirs.fileno()),
            readable=self._readable,
        )  # fmt: skip
        theirs.close()
        prover = self._provers[started.pid] = _Prover(started, ours)
        return prover

    def _body(self) -> None:
        self._trusted.start()
