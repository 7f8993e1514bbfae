"""The engine: candidates in, candidates with verdicts out, and nothing untrusted in this process.

One engine a process, used by many threads at once. It holds no torch: programs run in forks of a warm child,
the zygote (zygote.py), which starts with the first program and is started anew if it dies. The static gate
is asked here, before anything is forked. Verdicts are kept in a content-addressed cache.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from synth_core.program import naming
from synth_core.program.renaming import rename_class
from synth_core.records import Candidate, Graph, Program, Stage, Tier, Verdict, sha256
from synth_core.settings import ValidationSettings
from synth_core.validation import checks, contract, gate
from synth_core.validation.child import Answer, WarmChild
from synth_core.validation.verdicts import VerdictCache, code_version

Judgement = dict[str, Any]
"""Fields of a `Verdict` without stage, tier and torch, and `graph`, a `Graph` as JSON or None."""
Updates = dict[str, Any]


class Engine:
    """Validates candidates, at most `workers` programs at a time over all threads.

    cache_dir: where verdicts and precompiled headers lie; None: no verdict is kept.
    Raises `UsageError` for a check or rule that does not exist, and, with the first program, where no sandbox
    works and `allow_unsandboxed` is off; `EnvironmentFault` where the machine lacks a C++ compiler.
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
        self._child = WarmChild(
            "synth_core.validation.supervisor.zygote",
            {
                "cache": cache_dir or os.path.join(tempfile.gettempdir(), f"synth-cache-{os.getuid()}"),
                "workers": workers,
                "timeout": settings.timeout,
                "memory_mb": settings.memory_mb,
                "allow_unsandboxed": settings.allow_unsandboxed,
                "device": settings.device,
                "strongest": strongest,
            },
        )
        self._cache = VerdictCache(cache_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote and everything it started. It is of no use afterwards."""
        self._child.close()

    @property
    def tier(self) -> Tier:
        """How strongly programs are isolated on this machine. Starts the zygote."""
        return Tier(self._child.facts()["tier"])

    def probe(self) -> dict[str, Any]:
        """Facts for `synth check`: tier, why it is no stronger, versions of torch and Python."""
        return dict(self._child.facts())

    def validate_eager(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Prove the program sound in eager mode, capture its graph, and name it after what it realises."""
        return self._stage(Stage.VALIDATE_EAGER, candidates, _named)

    def validate_compile(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Prove that torch.compile captures the program whole and computes the same."""
        return self._stage(Stage.VALIDATE_COMPILE, candidates, lambda candidate, _: {})

    def _stage(
        self, stage: Stage, candidates: Sequence[Candidate], update: Callable[[Candidate, Judgement], Updates]
    ) -> list[Candidate]:
        """Start all, then collect all, so that the zygote's workers are busy across batches and threads."""
        tickets = [self._start(stage, c) if c.alive and c.program else None for c in candidates]
        return [
            candidate if ticket is None else self._finish(stage, candidate, ticket, update)
            for candidate, ticket in zip(candidates, tickets, strict=True)
        ]

    def _start(self, stage: Stage, candidate: Candidate) -> _Ticket:
        """Answer from the gate or the cache, or hand the program to the zygote."""
        assert candidate.program is not None
        if stage is Stage.VALIDATE_EAGER and checks.STATIC not in self._skips:
            failed = gate.check_source(candidate.program.source)
            if failed:
                return _Ticket(_answered({"passed": False, "graph": None, **failed}))
        request = self._request(candidate)
        rejudge = _in_sample(candidate.program, self._settings.rejudge_share)
        key = self._key(stage, request, rejudge)
        if (known := self._cache.find(key)) is not None:
            return _Ticket(_answered(known), from_cache=True)
        return _Ticket(self._child.submit({"stage": stage, "request": request, "rejudge": rejudge}), key=key)

    def _finish(
        self,
        stage: Stage,
        candidate: Candidate,
        ticket: _Ticket,
        update: Callable[[Candidate, Judgement], Updates],
    ) -> Candidate:
        answer = ticket.answer.result()
        judgement = answer["judgement"]
        if answer["alone"]:
            judgement = {
                **judgement,
                "measured": {**judgement.get("measured", {}), "compiled_alone": True},
            }
        if ticket.key:
            self._cache.keep(ticket.key, judgement)
        fields = {name: value for name, value in judgement.items() if name != "graph"}
        fields["skipped"] = tuple(fields.get("skipped", ())) or tuple(sorted(self._skips))
        facts = self._child.facts() if ticket.ran else {}
        verdict = Verdict(stage=stage, torch=facts.get("torch", ""), **{"tier": facts.get("tier"), **fields})
        seconds = candidate.telemetry.seconds | {stage.value: answer["seconds"]}
        cached = (*candidate.telemetry.from_cache, stage.value) if ticket.from_cache else ()
        telemetry = candidate.telemetry.model_copy(
            update={"seconds": seconds, "from_cache": cached or candidate.telemetry.from_cache}
        )
        updates = update(candidate, judgement) if verdict.passed else {}
        return candidate.judged(verdict, telemetry=telemetry, **updates)

    def _request(self, candidate: Candidate) -> dict[str, Any]:
        program = candidate.program
        assert program is not None
        return {
            "source": program.source,
            "name": program.name,
            "requested": list(candidate.specification.operators),
            "seed": _seed(program),
            "device": self._settings.device,
            "skip": sorted(self._skips),
            "reject_rules": sorted(self._rules),
        }

    def _key(self, stage: Stage, request: dict[str, Any], rejudge: bool) -> str:
        """Hash of all that a verdict depends on; with another share to rejudge, those that join or leave the
        sample are judged anew."""
        facts = self._child.facts()
        machine = [facts["torch"], facts["python"], facts["tier"]]
        limits = [self._settings.timeout, self._settings.memory_mb]
        return sha256(json.dumps([code_version(), stage, request, rejudge, machine, limits], sort_keys=True))


@dataclass(frozen=True)
class _Ticket:
    """An answer that will come. `key`: where the cache is to keep it; none where it came from there."""

    answer: Future[Answer]
    key: str = ""
    from_cache: bool = False

    @property
    def ran(self) -> bool:
        """A process ran for it, now or when the cache learnt it."""
        return self.from_cache or bool(self.key)


def _seed(program: Program) -> int:
    """Fixed only once the text is, so no text can know its own inputs; and the same in every run.

    The name of the class is left out: it changes when the realised operators are known, and the file that
    is kept must be judged on the inputs that the candidate was accepted with.
    """
    try:
        text = rename_class(program.source, "SynthModel")
    except (ValueError, SyntaxError, RecursionError):  # no program at all, its verdict will say so
        text = program.source
    return int(sha256(text)[:8], 16)


def _in_sample(program: Program, share: float) -> bool:
    """Whether a program is in the seeded sample that is judged again alone: its text decides, so every run
    draws the same."""
    return int(program.digest[:8], 16) < share * 2**32


def _answered(judgement: Judgement) -> Future[Answer]:
    answer: Future[Answer] = Future()
    answer.set_result({"judgement": judgement, "alone": False, "seconds": 0.0})
    return answer


def _named(candidate: Candidate, judgement: Judgement) -> Updates:
    """The captured graph, and the program under the name that its realised operators make.

    The compile stage then judges the very text that is kept.
    """
    assert candidate.program is not None
    graph = Graph.model_validate(judgement["graph"])
    name = naming.program_name(graph.operators)
    if name == candidate.program.name:
        return {"graph": graph}
    return {
        "graph": graph,
        "program": Program.of(name, rename_class(candidate.program.source, name)),
    }
