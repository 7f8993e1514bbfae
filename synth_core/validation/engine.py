"""The engine: candidates in, candidates with verdicts out. Nothing untrusted runs in this process.

A process has one engine, which many threads may use at once. The engine imports no torch and parses no
program. A child with limits reads the texts (reading.py). Forks of warm processes, the zygotes, run them
(supervisor/zygote.py). One zygote captures graphs and has them proved. The other has other hashes and
addresses, and runs each program once more. Zygotes start with the first program, and start again if they die.
A content-addressed cache keeps the verdicts.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from synth_core.errors import SynthError
from synth_core.limited import Unreadable, limited
from synth_core.program import naming
from synth_core.records import Candidate, Category, Graph, Program, Stage, Tier, Verdict, sha256
from synth_core.settings import ValidationSettings
from synth_core.validation import checks, contract, ends
from synth_core.validation.child import Answer, WarmChild
from synth_core.validation.ends import Judgement, failure
from synth_core.validation.verdicts import VerdictCache, code_version

_READING = "synth_core.validation.reading"
Updates = dict[str, Any]


class Engine:
    """Validates candidates, at most `workers` programs at a time over all threads.

    cache_dir: folder for verdicts and precompiled headers; None: no verdict is kept.
    Raises `UsageError` for a check or rule that does not exist. The first program raises `UsageError` if no
    sandbox works and `allow_unsandboxed` is off, and `EnvironmentFault` if the machine lacks a C++ compiler.
    """

    def __init__(
        self,
        settings: ValidationSettings,
        workers: int,
        cache_dir: str | None = None,
        strongest: Tier = Tier.A,
    ) -> None:
        self._settings = settings
        self._skips = checks.resolve_skips(settings.skip_checks)
        self._rules = contract.resolve_rules(settings.reject_rules, settings.warn_rules)
        configuration = {
            "cache": cache_dir or os.path.join(tempfile.gettempdir(), f"synth-cache-{os.getuid()}"),
            "workers": workers,
            "timeout": settings.timeout,
            "memory_mb": settings.memory_mb,
            "allow_unsandboxed": settings.allow_unsandboxed,
            "device": settings.device,
            "strongest": strongest,
        }
        zygote = "synth_core.validation.supervisor.zygote"
        self._child = WarmChild(zygote, configuration | {"role": "capture"}, hash_seed=1)
        self._repeater = WarmChild(zygote, configuration | {"role": "repeat"}, hash_seed=2)
        self._cache = VerdictCache(cache_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the zygotes and all that they started. The engine cannot be used afterwards."""
        try:
            self._child.close()
        finally:
            self._repeater.close()

    @property
    def tier(self) -> Tier:
        """How strongly programs are isolated on this machine. Starts the zygote."""
        return Tier(self._child.facts()["tier"])

    def probe(self) -> dict[str, Any]:
        """Facts for `synth check`: the tier, why it is not stronger, the versions of torch and Python."""
        return dict(self._child.facts())

    def validate_eager(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Capture the graph, prove it sound in eager mode, and name the program after its operators."""
        return self._stage(Stage.VALIDATE_EAGER, candidates, _named)

    def validate_compile(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Compile the captured graph, and prove that the compiled code computes the same."""
        return self._stage(Stage.VALIDATE_COMPILE, candidates, lambda candidate, _: {})

    def _stage(
        self, stage: Stage, candidates: Sequence[Candidate], update: Callable[[Candidate, Judgement], Updates]
    ) -> list[Candidate]:
        """Start all programs, then collect all answers. So workers stay busy across batches and threads."""
        tickets = [self._start(stage, c) if c.alive and c.program else None for c in candidates]
        return [
            candidate if ticket is None else self._finish(stage, candidate, ticket, update)
            for candidate, ticket in zip(candidates, tickets, strict=True)
        ]

    def _start(self, stage: Stage, candidate: Candidate) -> _Ticket:
        """Read the text; then answer from the cache, or hand the program to the zygotes.

        A fault of one candidate becomes the verdict of this candidate. A fault of the machine or a mistake of
        the user is raised.
        """
        try:
            return self._started(stage, candidate)
        except SynthError:
            raise
        except Exception as error:
            return _Ticket(known=_broken(error))

    def _started(self, stage: Stage, candidate: Candidate) -> _Ticket:
        program = candidate.program
        assert program is not None
        gated = stage is Stage.VALIDATE_EAGER and checks.STATIC not in self._skips
        try:
            reading = limited(f"{_READING}:read", program.source, program.name, gated)
        except Unreadable as error:
            return _Ticket(known=failure(Category.SYNTAX_ERROR, str(error), check="builds"))
        if reading["failure"]:
            return _Ticket(known=failure(**reading["failure"]))
        request = {"source": program.source, "name": program.name, "seed": reading.pop("seed")}
        job = {"stage": stage, "text": reading["text"]}
        question = self._question(candidate, reading)
        key = self._key(stage, request, question)
        if (known := self._cache.find(key)) is not None:
            return _Ticket(known=known, from_cache=True)
        text = json.dumps(request | {"brief": self._settings.device == "cuda"}).encode()
        asked = {**request, **question, "source": ""}
        if stage is Stage.VALIDATE_EAGER and "deterministic" not in self._skips:
            return _Ticket(self._rehearsed(job, text, asked), key)
        return _Ticket(self._child.submit(job, text, json.dumps(asked).encode()), key)

    def _rehearsed(self, job: dict[str, Any], text: bytes, asked: dict[str, Any]) -> Future[Answer]:
        """Run the program first in the process with other hashes. If that ends well, capture and prove it.

        The prover compares the results of both runs.
        """
        answer: Future[Answer] = Future()

        def rehearsed(done: Future[Answer]) -> None:
            try:
                first = done.result()
                said = ends.rehearsal(first, self._settings.timeout, self._settings.memory_mb)
                if "passed" in said:
                    answer.set_result({**first, "judgement": {**said, "contract": asked["rules"]}})
                    return
                question = json.dumps({**asked, "repeated": said}).encode()
                proved = self._child.submit(job, text, question)
                proved.add_done_callback(lambda second: _pass_on(second, first, answer))
            except BaseException as error:
                answer.set_exception(error)

        self._repeater.submit(job, text, b"").add_done_callback(rehearsed)
        return answer

    def _finish(
        self,
        stage: Stage,
        candidate: Candidate,
        ticket: _Ticket,
        update: Callable[[Candidate, Judgement], Updates],
    ) -> Candidate:
        judgement, seconds = dict(ticket.known), 0.0
        if ticket.proved:
            answer = ticket.proved.result()
            seconds = answer.get("seconds", 0.0)
            judgement = ends.judgement(answer, self._settings.timeout, self._settings.memory_mb)
            self._cache.keep(ticket.key, judgement)
        try:
            return self._judged(stage, candidate, ticket, judgement, seconds, update)
        except SynthError:
            raise
        except Exception as error:
            return self._judged(stage, candidate, ticket, _broken(error), seconds, update)

    def _judged(
        self,
        stage: Stage,
        candidate: Candidate,
        ticket: _Ticket,
        judgement: Judgement,
        seconds: float,
        update: Callable[[Candidate, Judgement], Updates],
    ) -> Candidate:
        fields = {name: value for name, value in judgement.items() if name != "graph"}
        fields["skipped"] = tuple(fields.get("skipped", ())) or tuple(sorted(self._skips))
        facts = self._child.facts() if ticket.ran else {}
        verdict = Verdict(stage=stage, torch=facts.get("torch", ""), **{"tier": facts.get("tier"), **fields})
        cached = (*candidate.telemetry.from_cache, stage.value) if ticket.from_cache else ()
        telemetry = candidate.telemetry.model_copy(
            update={
                "seconds": candidate.telemetry.seconds | {stage.value: seconds},
                "from_cache": cached or candidate.telemetry.from_cache,
            }
        )
        updates = update(candidate, judgement) if verdict.passed else {}
        return candidate.judged(verdict, telemetry=telemetry, **updates)

    def _question(self, candidate: Candidate, reading: dict[str, Any]) -> dict[str, Any]:
        """What a prover must know, besides what the child has written."""
        return {
            "rules": reading["rules"],
            "literal_tuple": reading["literal_tuple"],
            "numbers": reading["numbers"],
            "requested": list(candidate.specification.operators),
            "device": self._settings.device,
            "skip": sorted(self._skips),
            "reject_rules": sorted(self._rules),
        }

    def _key(self, stage: Stage, request: dict[str, Any], question: dict[str, Any]) -> str:
        """Hash of everything that a verdict depends on."""
        facts = self._child.facts()
        machine = [facts["torch"], facts["python"], facts["tier"]]
        limits = [self._settings.timeout, self._settings.memory_mb]
        return sha256(json.dumps([code_version(), stage, request, question, machine, limits], sort_keys=True))


@dataclass(frozen=True)
class _Ticket:
    """An answer that will come, or one that is known. key: under which the cache keeps it."""

    proved: Future[Answer] | None = None
    key: str = ""
    known: Judgement = field(default_factory=dict)
    from_cache: bool = False

    @property
    def ran(self) -> bool:
        """A process ran for it, now or before the cache kept it."""
        return self.from_cache or bool(self.proved)


def _pass_on(second: Future[Answer], first: Answer, answer: Future[Answer]) -> None:
    if error := second.exception():
        answer.set_exception(error)
    else:
        found = second.result()
        seconds = found.get("seconds", 0.0) + first.get("seconds", 0.0)
        answer.set_result({**found, "seconds": seconds})


def _broken(error: Exception) -> Judgement:
    """A fault of the validator on one candidate is the verdict of that candidate only."""
    return failure(
        Category.CRASH, f"the validator failed on it: {type(error).__name__}: {error}", check="engine"
    )


def _named(candidate: Candidate, judgement: Judgement) -> Updates:
    """The captured graph, and the program under the name that follows from its realised operators.

    The compile stage then judges exactly the text that is kept.
    """
    assert candidate.program is not None
    graph = Graph.model_validate(judgement["graph"])
    name = naming.program_name(graph.operators)
    if name == candidate.program.name:
        return {"graph": graph}
    renamed = limited(f"{_READING}:rename", candidate.program.source, name)
    return {"graph": graph, "program": Program.of(name, renamed)}
