"""Stages that cost what they are told to cost, for measuring everything around them."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flows.pipeline.dask_workers import spread
from flows.pipeline.stages import Workshop, keep, start
from synth_core.records import (
    Candidate,
    Category,
    Completion,
    Graph,
    Outcome,
    Program,
    Stage,
    Verdict,
    sha256,
)
from synth_core.settings import Settings
from synth_core.store import Run
from tasks.cache import Batch
from tasks.stages import Stages, Step


@dataclass
class Simulation:
    """An LLM of `latency` seconds a call, `concurrency` calls at once; validation of `seconds` a candidate,
    `workers` at once. One candidate in `one_bad_in` fails, by its seed, so a run is reproducible.

    stage_cpu: CPU seconds that the stages spent in the flow's own threads, by stage.
    """

    latency: float = 0.0
    concurrency: int = 64
    seconds: float = 0.0
    workers: int = 2
    one_bad_in: int = 10
    stage_cpu: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(Stage, 0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def open(self, run: Run) -> Iterator[Workshop]:
        with contextlib.ExitStack() as stack:
            calls = stack.enter_context(ThreadPoolExecutor(self.concurrency))
            workers = stack.enter_context(ThreadPoolExecutor(self.workers))
            steps: dict[Stage, Step] = {stage: _pass(stage) for stage in Stage}
            steps[Stage.LLM] = lambda candidates, _: list(calls.map(self._answer, candidates))
            steps[Stage.EXTRACT] = lambda candidates, _: [_extract(c) for c in candidates]
            steps[Stage.VALIDATE_EAGER] = lambda candidates, _: list(workers.map(self._validate, candidates))
            if run.settings.runner == "dask":
                steps |= stack.enter_context(spread(run.settings, [Stage.VALIDATE_EAGER], open_on_worker))
            steps[Stage.PERSIST] = functools.partial(keep, run)
            timed = {stage: self._timed(stage, step) for stage, step in steps.items()}

            def sample(batch: Batch, earlier: Sequence[Candidate]) -> list[Candidate]:
                return self._measured(Stage.SAMPLE, lambda: start(run, batch, earlier))

            yield Workshop(Stages(sample, timed))

    def _timed(self, stage: Stage, step: Step) -> Step:
        return lambda candidates, manifest: self._measured(stage, lambda: step(candidates, manifest))

    def _measured(self, stage: Stage, work: Callable[[], list[Candidate]]) -> list[Candidate]:
        began = time.thread_time()
        try:
            return work()
        finally:
            with self._lock:
                self.stage_cpu[stage] += time.thread_time() - began

    def _answer(self, candidate: Candidate) -> Candidate:
        time.sleep(self.latency)
        text = sha256(f"{candidate.specification.operators} {candidate.specification.seed}")[:12]
        completion = Completion(outcome=Outcome.OK, text=text, requested_model="simulated")
        return candidate.judged(Verdict.ok(Stage.LLM), completion=completion)

    def _validate(self, candidate: Candidate) -> Candidate:
        time.sleep(self.seconds)
        if candidate.specification.seed % self.one_bad_in == 0:
            return candidate.judged(Verdict.fail(Stage.VALIDATE_EAGER, Category.SHAPE_ERROR, "simulated"))
        graph = Graph(nodes=(), operators=candidate.specification.operators)
        return candidate.judged(Verdict.ok(Stage.VALIDATE_EAGER), graph=graph)


@contextlib.contextmanager
def open_on_worker(settings: Settings) -> Iterator[dict[Stage, Step]]:
    """On a Dask worker: validation of half a second a candidate."""
    validate = Simulation(seconds=0.5)._validate
    yield {Stage.VALIDATE_EAGER: lambda candidates, _: [validate(c) for c in candidates]}


def _pass(stage: Stage) -> Step:
    return lambda candidates, _: [c.judged(Verdict.ok(stage)) if c.alive else c for c in candidates]


def _extract(candidate: Candidate) -> Candidate:
    assert candidate.completion
    name = f"SynthModel_{candidate.specification.operators[0]}_{candidate.completion.text}"
    program = Program.of(name, f"class {name}:\n    pass\n")
    return candidate.judged(Verdict.ok(Stage.EXTRACT), program=program)
