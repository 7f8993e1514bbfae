"""Which program runs when: at most `workers` processes work at once, busy provers included.

A job is one confined child. If the child ends well, the job is then one case for a prover. The child says
once that it has captured its graph. Then the scheduler seals what the child has written, so that nobody can
change it. Only then does it draw the seed of the further inputs on which the child must run.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from synth_core.records import Stage
from synth_core.validation.sandbox import process, usage
from synth_core.validation.sandbox.confine import Limits, Sandbox
from synth_core.validation.sandbox.files import anonymous_file, seal
from synth_core.validation.sandbox.process import Process
from synth_core.validation.sandbox.seccomp import Profile
from synth_core.validation.supervisor.captures import Captures
from synth_core.validation.supervisor.job import Job
from synth_core.validation.supervisor.provers import Provers


@dataclass(eq=False)
class _Run:
    """A living child and its job. seeded: the child has spoken, and nothing more is read from it."""

    job: Job
    process: Process
    channel: socket.socket
    seeded: bool = False


class Scheduler:
    """Owns the children. The loop of the zygote calls `advance` whenever something happened.

    body: what a child does. draws: what a child does if the graph of its text is known already.
    provers: None if the answer of the child is enough.
    done: takes a job, the fields of its answer, and a file. The file holds a judgement, what the child wrote,
    or the last that it printed.
    """

    def __init__(
        self,
        box: Sandbox,
        limits: Limits,
        workers: int,
        body: Callable[[], None],
        draws: Callable[[], None],
        provers: Provers | None,
        started: Callable[[Job], None],
        done: Callable[[Job, dict[str, Any], int], None],
    ) -> None:
        self._box, self._workers, self._body, self._provers = box, workers, body, provers
        self._draws = draws
        self._started, self._done = started, done
        self._captures = Captures()
        self._queues: dict[bool, deque[Job]] = {True: deque(), False: deque()}
        self._runs: dict[int, _Run] = {}
        self._slots = list(range(256))
        me = os.getpid()
        self._limits = replace(limits, born_kb=usage.data_kb(me), born_resident_kb=usage.resident_kb(me))

    def submit(self, job: Job) -> None:
        self._queues[job.stage == Stage.VALIDATE_COMPILE].append(job)

    def watched(self) -> dict[int, Callable[[], object]]:
        """Descriptors to wait for, each with what to call when it can be read."""
        calls: dict[int, Callable[[], object]] = {}
        for run in self._runs.values():
            calls[run.process.output] = run.process.drain
            if not run.seeded:
                calls[run.channel.fileno()] = partial(self._captured, run)
        return calls | (self._provers.watched() if self._provers else {})

    @property
    def idle(self) -> bool:
        busy = self._provers.waiting + self._provers.busy if self._provers else 0
        return not (self._runs or any(self._queues.values()) or busy)

    def advance(self) -> None:
        """Reap dead processes, end those over their limits, start as many as there is room for."""
        self._reap()
        now = time.monotonic()
        for run in self._runs.values():
            run.process.watch(now, "" if self._box.namespaces else self._folder(run))
        if self._provers:
            self._provers.watch(now)
        while self._room > 0:
            if self._provers and self._provers.start(hurry=not any(self._queues.values()) and not self._runs):
                continue
            queue = self._queues[True] or self._queues[False]  # those that are nearly done come first
            if not (queue and self._slots):
                break
            self._start(queue.popleft())

    @property
    def _room(self) -> int:
        return self._workers - len(self._runs) - (self._provers.busy if self._provers else 0)

    def close(self) -> None:
        for run in self._runs.values():
            run.process.kill()
        if self._provers:
            self._provers.close()
        self._captures.close()

    def _folder(self, run: _Run) -> str:
        return f"{self._box.scratch}/{Profile.PROGRAM}-{run.process.slot}"

    def _start(self, job: Job) -> None:
        self._started(job)
        captured = self._captures.take(job.text) if job.stage == Stage.VALIDATE_COMPILE else None
        job.kept = captured is not None
        job.evidence = [anonymous_file("captured") if captured is None else captured, anonymous_file("fresh")]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        started = process.start(
            self._box, Profile.PROGRAM, self._limits, self._slots.pop(),
            self._draws if job.kept else self._body,
            files=(None if job.kept else job.evidence[0], theirs.fileno(), job.program, job.evidence[1]),
        )  # fmt: skip
        started.evidence = tuple(job.evidence[job.kept :])
        theirs.close()
        self._runs[started.pid] = _Run(job, started, ours)

    def _captured(self, run: _Run) -> None:
        """Seal what the child has written, and only then draw the seed."""
        try:
            said = run.channel.recv(2)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        run.seeded = True
        if not said:
            return  # it is dead or has closed its channel: its evidence will be incomplete
        if said != process.CAPTURED:
            run.process.violate("it talked to its supervisor out of turn")
            return
        try:
            if not run.job.kept:
                seal(run.job.evidence[0])
        except OSError:
            run.process.violate("it kept a way to change what it had written")
            return
        run.job.seed = secrets.randbits(63)
        with contextlib.suppress(OSError):
            run.channel.send(run.job.seed.to_bytes(8, "little"))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if run := self._runs.pop(pid, None):
                    self._ended(run, status)
                elif self._provers:
                    self._provers.ended(pid, status)

    def _ended(self, run: _Run, status: int) -> None:
        job = run.job
        job.observed = run.process.reaped(status)
        run.channel.close()
        if not self._box.namespaces:
            shutil.rmtree(self._folder(run), ignore_errors=True)
        self._slots.append(run.process.slot)
        job.seconds += job.observed.seconds
        if not job.observed.finished:
            words = anonymous_file("words", run.process.last_words())
            self._done(job, {"observed": asdict(job.observed)}, words)
        elif self._provers:
            if job.stage == Stage.VALIDATE_EAGER and job.seed:
                self._captures.keep(job.text, job.evidence[0])
            self._provers.submit(job)
        else:
            self._done(job, {}, os.dup(job.evidence[0]))
