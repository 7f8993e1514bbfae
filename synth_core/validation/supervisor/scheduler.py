"""Which program runs when: at most `workers` processes at once, compilers included.

A job starts as one forked process (eager) or two in turn (eager, then compiled). A process that asks for C++
gives up its place until that is built. When a job's processes are dead their evidence goes to the judge,
unless what their supervisor saw decides already.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from synth_core.records import Category, Tier
from synth_core.validation.evidence import EvidenceWriter, Observation
from synth_core.validation.inside import vetting
from synth_core.validation.judge.process import VETTING, Judgement, Judges, failure
from synth_core.validation.sandbox import process
from synth_core.validation.sandbox.confine import Limits, Sandbox
from synth_core.validation.sandbox.process import HARNESS_FAILED
from synth_core.validation.sandbox.seccomp import Profile
from synth_core.validation.supervisor.builds import UNIT_SIZE, Builder, Client
from synth_core.validation.supervisor.cuda import GpuWorkers
from synth_core.validation.supervisor.job import Job

_MEMORY_WORDS = ("MemoryError", "allocate memory", "std::bad_alloc")


@dataclass(eq=False)
class _Run:
    """A living process of a job."""

    job: Job
    client: Client
    evidence: int


class Scheduler:
    """Owns the processes of programs. The zygote's loop calls `advance` whenever something happened."""

    def __init__(
        self,
        box: Sandbox,
        builder: Builder,
        judges: Judges,
        workers: int,
        started: Callable[[Job], None],
        done: Callable[[Job, Judgement], None],
    ) -> None:
        self._box, self._builder, self._judges, self._workers = box, builder, judges, workers
        self._started, self._done = started, done
        self._compiling: deque[Job] = deque()
        self._eager: deque[Job] = deque()
        self._runs: dict[int, _Run] = {}
        self._slots = list(range(256))
        self.pool = GpuWorkers(box, workers, self._ran_on_gpu)
        self._born_kb = process.data_kb(os.getpid())
        self._born_resident_kb = process.resident_kb(os.getpid())

    def submit(self, job: Job) -> None:
        self._queue(job).append(job)

    def _queue(self, job: Job) -> deque[Job]:
        """Of two queues; the last stage's is served first, so that programs that are nearly done get done."""
        return self._compiling if job.compiles else self._eager

    def watched(self) -> dict[int, Callable[[], object]]:
        """Descriptors that may become readable, and what to call then."""
        calls: dict[int, Callable[[], object]] = {}
        for run in self._runs.values():
            calls[run.client.process.output] = run.client.process.drain
            if not run.client.sources:
                calls[run.client.channel.fileno()] = partial(self._listen, run.client)
        for compiler in self._builder.processes():
            calls[compiler.output] = compiler.drain
        return calls | self.pool.watched()

    @property
    def idle(self) -> bool:
        queued = self._compiling or self._eager
        return not (self._runs or queued or self._builder.compiling) and self.pool.idle

    def advance(self) -> None:
        """Reap the dead, end what is over its limits, start what there is room for."""
        self._reap()
        now = time.monotonic()
        for run in self._runs.values():
            run.client.process.watch(now, "" if self._box.namespaces else self._folder(run))
        for compiler in self._builder.processes():
            compiler.watch(now)
        self.pool.advance(now)
        while self._busy < self._workers:
            if self._worth_building():
                self._builder.start()
            elif (queue := self._compiling or self._eager) and self._slots:
                self._start(queue.popleft())
            else:
                break

    def close(self) -> None:
        for running in [*(run.client.process for run in self._runs.values()), *self._builder.processes()]:
            running.kill()
        self.pool.close()

    def _listen(self, client: Client) -> None:
        if client.listen():
            self._builder.add(client)

    def _worth_building(self) -> bool:
        """A unit is full, or half full with nothing left to compile, or nobody else will join it."""
        if self._compiling:
            return self._builder.waiting >= UNIT_SIZE
        return self._builder.waiting > (0 if self._computing == 0 else UNIT_SIZE // 2)

    @property
    def _computing(self) -> int:
        """Programs that do not wait for C++."""
        return sum(not run.client.sources for run in self._runs.values())

    @property
    def _busy(self) -> int:
        return self._computing + self._builder.compiling

    def _folder(self, run: _Run) -> str:
        return f"{self._box.scratch}/{Profile.PROGRAM}-{run.client.process.slot}"

    def _start(self, job: Job) -> None:
        if not job.evidence:
            self._started(job)
        if job.on_gpu:
            job.vetted_on = "cpu" if job.vetted_on else "meta"
        evidence = process.anonymous_file("evidence")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        limits = replace(job.limits, born_kb=self._born_kb, born_resident_kb=self._born_resident_kb)
        started = process.start(
            self._box, Profile.PROGRAM, limits, self._slots.pop(), lambda: _probe(job),
            evidence=evidence, channel=theirs.fileno(), readable=(self._builder.folder,),
        )  # fmt: skip
        theirs.close()
        self._runs[started.pid] = _Run(job, Client(started, ours, job.alone), evidence)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if run := self._runs.pop(pid, None):
                    self._ended(run, status)
                else:
                    self._builder.ended(pid, status) or self.pool.ended(pid, status)

    def _ended(self, run: _Run, status: int) -> None:
        job, client = run.job, run.client
        observed = client.process.reaped(status)
        client.channel.close()
        client.sources = []
        self._builder.forget(client)
        if not self._box.namespaces:
            shutil.rmtree(self._folder(run), ignore_errors=True)
        self._slots.append(client.process.slot)
        job.shared |= client.shared
        job.evidence.append((run.evidence, observed))
        job.seconds += observed.seconds
        if judgement := _seen(observed, job.limits):
            self._finish(job, judgement)
        elif job.on_gpu:
            self._judges.idlest.submit(VETTING, job.request, job.evidence, partial(self._vetted, job))
        elif job.compiles and len(job.evidence) == 1:
            self._queue(job).appendleft(job)
        else:
            self._judges.idlest.submit(job.stage, job.request, job.evidence, partial(self._finish, job))

    def _vetted(self, job: Job, judgement: Judgement) -> None:
        """A program that a confined fork has executed to its end may enter a shared worker."""
        if judgement["passed"]:
            job.drop_evidence()
            job.vetted_on = ""
            with contextlib.suppress(KeyError, TypeError, ValueError):  # the program may have written it
                job.memory_mb, job.later_mb = vetting.memory_mb(judgement["sizes"], job.compiles)
            self.pool.submit(job)
        elif job.vetted_on == "meta":
            job.drop_evidence()
            self._queue(job).appendleft(job)
        else:
            self._finish(job, judgement)

    def _ran_on_gpu(self, job: Job, evidence: list[tuple[int, Observation]]) -> None:
        job.evidence = evidence
        job.seconds += evidence[-1][1].seconds
        if judgement := _seen(evidence[-1][1], job.limits):
            self._judged_on_gpu(job, judgement)
        else:
            self._judges.idlest.submit(
                job.stage, job.request, job.evidence, partial(self._judged_on_gpu, job)
            )

    def _judged_on_gpu(self, job: Job, judgement: Judgement) -> None:
        """Out of memory beside others may fit alone: that is tried before it is said."""
        if judgement.get("category") == Category.OUT_OF_MEMORY and not job.whole:
            job.whole = True
            job.drop_evidence()
            self.pool.submit(job)
        else:
            self._finish(job, judgement | {"tier": Tier.SHARED_WORKER})

    def _finish(self, job: Job, judgement: Judgement) -> None:
        job.drop_evidence()
        self._done(job, judgement)


def _probe(job: Job) -> None:
    """Inside the confined process: run the program and write down what it did."""
    from synth_core.validation.inside import probe

    gc.disable()  # it would copy the zygote's pages to find nothing worth freeing
    request = job.request | {"brief": job.compiles}  # the eager stage has looked at the rest already
    with process.open_evidence() as file:
        writer = EvidenceWriter(file)
        if job.on_gpu:
            vetting.vet(request, job.vetted_on, writer)
        elif job.compiles and job.evidence:
            probe.run_compiled(request, writer)
        else:
            probe.run_eager(request, writer)
        writer.end()


def _seen(observed: Observation, limits: Limits) -> Judgement | None:
    """The judgement that follows from how the process ended; None where it ended by itself, at exit 0."""
    if observed.finished:
        return None
    tail = observed.output.strip()
    last = f": {tail.splitlines()[-1]}" if tail else ""
    if observed.violation:
        return failure(Category.SANDBOX_VIOLATION, observed.violation, check="sandbox")
    if observed.timed_out:
        return failure(Category.TIMEOUT, f"still running after {limits.seconds:g} s", check="timeout")
    if observed.out_of_memory or (observed.exit_code == HARNESS_FAILED and _ran_out(tail)):
        return failure(Category.OUT_OF_MEMORY, f"needs more than {limits.data_mb} MiB{last}", check="memory")
    if observed.signal is not None:
        name = signal.Signals(observed.signal).name
        return failure(Category.CRASH, f"killed by {name}{last}", check="crash")
    return failure(Category.CRASH, f"ended itself with exit code {observed.exit_code}{last}", check="crash")


def _ran_out(tail: str) -> bool:
    return any(word in tail for word in _MEMORY_WORDS)
