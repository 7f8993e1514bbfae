"""Stages small enough to follow by eye, which count what they do, and the flow run with them."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.pipeline.progress import RunSummary
from flows.pipeline.stages import Workshop, keep, start
from flows.run import run_synth
from synth_core.records import (
    Candidate,
    Category,
    Completion,
    Graph,
    Manifest,
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
class Bench:
    """Deterministic stages: the answer says what program comes, every seventh seed is a bad one.

    done: (stage, round, first candidate) -> how often the stage worked on that batch. disturb: called first.
    """

    done: Counter[tuple[Stage, int, str]] = field(default_factory=Counter)
    disturb: Callable[[Stage, Sequence[Candidate]], None] = lambda stage, candidates: None
    is_bad: Callable[[Candidate], bool] = lambda candidate: candidate.specification.seed % 7 == 0
    answer: Step | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def open(self, run: Run) -> Iterator[Workshop]:
        steps = {stage: self._counted(stage, self._pass(stage)) for stage in Stage}
        steps[Stage.LLM] = self._counted(Stage.LLM, self.answer or self._answer)
        steps[Stage.EXTRACT] = self._counted(Stage.EXTRACT, self._extract)
        steps[Stage.VALIDATE_EAGER] = self._counted(Stage.VALIDATE_EAGER, self._validate)
        steps[Stage.PERSIST] = self._counted(Stage.PERSIST, functools.partial(keep, run))

        def sample(batch: Batch, earlier: Sequence[Candidate]) -> list[Candidate]:
            candidates = start(run, batch, earlier)
            self._note(Stage.SAMPLE, batch.round, candidates)
            return candidates

        yield Workshop(Stages(sample, steps))

    def count(self, stage: Stage) -> int:
        """How many batches the stage worked on, repeated work counted again."""
        return sum(times for (where, _, _), times in self.done.items() if where is stage)

    def _note(self, stage: Stage, round: int, candidates: Sequence[Candidate]) -> None:  # noqa: A002
        self.disturb(stage, candidates)
        with self.lock:
            self.done[stage, round, candidates[0].id if candidates else ""] += 1

    def _counted(self, stage: Stage, step: Step) -> Step:
        def counted(candidates: Sequence[Candidate], manifest: Manifest) -> list[Candidate]:
            self._note(stage, manifest.round, candidates)
            return step(candidates, manifest)

        return counted

    @staticmethod
    def _pass(stage: Stage) -> Step:
        return lambda candidates, _: [c.judged(Verdict.ok(stage)) if c.alive else c for c in candidates]

    @staticmethod
    def _answer(candidates: Sequence[Candidate], _: Manifest) -> list[Candidate]:
        def answer(candidate: Candidate) -> Candidate:
            text = sha256(f"{candidate.specification.operators} {candidate.specification.seed}")[:12]
            completion = Completion(outcome=Outcome.OK, text=text, requested_model="sim")
            return candidate.judged(Verdict.ok(Stage.LLM), completion=completion)

        return [answer(candidate) for candidate in candidates]

    @staticmethod
    def _extract(candidates: Sequence[Candidate], _: Manifest) -> list[Candidate]:
        def extract(candidate: Candidate) -> Candidate:
            assert candidate.completion
            name = f"SynthModel_{candidate.specification.operators[0]}_{candidate.completion.text}"
            return candidate.judged(
                Verdict.ok(Stage.EXTRACT), program=Program.of(name, f"class {name}:\n    pass\n")
            )

        return [extract(candidate) if candidate.alive else candidate for candidate in candidates]

    def _validate(self, candidates: Sequence[Candidate], _: Manifest) -> list[Candidate]:
        def validate(candidate: Candidate) -> Candidate:
            if self.is_bad(candidate):
                bad = Verdict.fail(Stage.VALIDATE_EAGER, Category.SHAPE_ERROR, "simulated")
                return candidate.judged(bad)
            graph = Graph(nodes=(), operators=candidate.specification.operators)
            return candidate.judged(Verdict.ok(Stage.VALIDATE_EAGER), graph=graph)

        return [validate(candidate) if candidate.alive else candidate for candidate in candidates]


@dataclass
class Runner:
    """Runs the flow into one folder, with stages that count."""

    folder: Path
    bench: Bench = field(default_factory=Bench)

    def __call__(self, *, resume: str | None = None, **options: object) -> RunSummary:
        settings = Settings.model_validate({"seed": 7, "output_dir": str(self.folder), **options})
        return run_synth(settings, resume=resume, open_workshop=self.bench.open)

    def programs(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.glob("*.py")}
