"""A prover at work: it proves a batch of cases step by step. It never runs the text of a program."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch

from synth_core.records import Category, Stage
from synth_core.validation.ends import failure
from synth_core.validation.evidence import Evidence
from synth_core.validation.prover import case, compiled, cxx, decide, eager, inductor
from synth_core.validation.prover.case import Case
from synth_core.validation.prover.compiled import Compiled
from synth_core.validation.prover.running import quiet_torch

STAGES: Final = {"eager": Stage.VALIDATE_EAGER, "compile": Stage.VALIDATE_COMPILE}


@dataclass
class Job:
    """One program. generated: its generated code, between two steps; failed: the error that came first."""

    id: int
    stages: list[str]
    request: dict[str, Any]
    streams: list[Evidence]
    generated: Compiled | None = None
    failed: Exception | None = None

    @cached_property
    def case(self) -> Case:
        device = torch.device(self.request.get("device", "cpu"))
        return case.read(self.streams, int(self.request["draw_seed"]), device, device != case.CPU)


@dataclass
class Prover:
    """compiler: None if no C++ is needed.

    say: hands one message on: `{"at": id, "step": step}` when a step of a job begins, or a judgement,
        `{"id", "stage", "judgement"}`.
    """

    compiler: cxx.Compiler | None
    say: Callable[[dict[str, Any]], None]
    _jobs: list[Job] = field(default_factory=list)

    def prove(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if "eager" in job.stages and not self._step(job, "eager", self._eager):
                job.stages = []
        compiling = [job for job in jobs if "compile" in job.stages]
        for job in compiling:
            self._step(job, "codegen", self._codegen)
        generated = [job for job in compiling if job.generated]
        if generated:
            self.say({"at": generated[0].id, "step": "build"})
            self._build(generated)
        for job in compiling:
            self._step(job, "run", self._compiled)

    def _step(self, job: Job, step: str, take: Callable[[Job], bool]) -> bool:
        self.say({"at": job.id, "step": step})
        return take(job)

    def _eager(self, job: Job) -> bool:
        quiet_torch()
        skip = frozenset(job.request.get("skip", ()))
        return self._answer(job, "eager", lambda read: eager.run(job.request, read, skip))

    def _codegen(self, job: Job) -> bool:
        quiet_torch()
        try:
            job.generated = compiled.generate(job.request, job.case)
        except Exception as error:  # reported when the answer is due
            job.failed = error
        return True

    def _build(self, jobs: Sequence[Job]) -> None:
        programs = [job.generated.generated.kernels for job in jobs if job.generated]
        if not self.compiler:
            return
        for job, complaint in zip(jobs, cxx.build(self.compiler, programs), strict=True):
            if complaint:
                job.failed, job.generated = cxx.CompileFailed(complaint), None

    def _compiled(self, job: Job) -> bool:
        def run(read: Case) -> Any:
            if job.failed:
                raise job.failed
            assert job.generated
            return job.generated.run()

        try:
            return self._answer(job, "compile", run)
        finally:
            job.generated = None

    def _answer(self, job: Job, stage: str, measure: Callable[[Case], Any]) -> bool:
        try:
            judgement = decide.decide(job.request, STAGES[stage], lambda: job.case, measure)
        except Exception:
            traceback.print_exc()
            last = traceback.format_exc().strip().splitlines()[-1]
            judgement = failure(Category.CRASH, f"the prover failed on this case: {last}", check="prover")
        self.say({"id": job.id, "stage": stage, "judgement": judgement})
        return bool(judgement["passed"])


def warm(cache: str) -> cxx.Compiler:
    """Import, configure and compile one small graph, so that forks of this process need not do it."""
    torch.set_num_threads(1)
    inductor.configure()
    cxx.reveal_torch()
    compiler = cxx.find_compiler(cache)
    quiet_torch()
    inductor.warm_up(compiler.build)
    return compiler
