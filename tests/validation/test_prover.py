"""A prover at work on several cases at once: each gets its own judgement, whatever its neighbours are."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from probing import DRAW_SEED, compiler, program, request, streams_of

from synth_core.records import Stage
from synth_core.validation.evidence import Evidence
from synth_core.validation.prover import eager
from synth_core.validation.prover.case import CPU, read
from synth_core.validation.prover.decide import decide
from synth_core.validation.prover.worker import Job, Prover

SOUND = program("return torch.tanh(self.linear(x))", "self.linear = nn.Linear(6, 3)")
OTHER = program("return torch.sigmoid(self.linear(x)) * 3.0", "self.linear = nn.Linear(6, 3)")
RAISES = program("return x.no_such_method()")
REDUNDANT = program("return torch.relu(torch.relu(x))")


@cache
def streams(source: str) -> tuple[Evidence, ...]:
    return tuple(streams_of(request(source)))


def job(number: int, source: str, *stages: str, written: tuple[Evidence, ...] = ()) -> Job:
    return Job(
        id=number, stages=list(stages), request=request(source), streams=list(written or streams(source))
    )


def answers(*jobs: Job) -> list[dict[str, Any]]:
    """All that the prover says."""
    said: list[dict[str, Any]] = []
    Prover(compiler(), said.append).prove(jobs)
    return said


def test_each_case_of_a_batch_gets_its_own_judgement() -> None:
    captured, *more = streams(OTHER)
    broken = (replace(captured, complete=False), *more)
    said = answers(
        job(0, SOUND, "compile"),
        job(1, RAISES, "compile"),
        job(2, OTHER, "compile", written=broken),
        job(3, OTHER, "compile"),
    )
    judged = {one["id"]: one["judgement"] for one in said if "judgement" in one}
    assert [judged[number]["passed"] for number in range(4)] == [True, False, False, True], judged
    assert judged[1]["category"] == "EXCEPTION"
    assert judged[2]["category"] == "CRASH"


def test_the_supervisor_hears_which_case_a_prover_is_at() -> None:
    """So that it can end one that takes too long, and knows whose fault that is."""
    said = answers(job(0, SOUND, "compile"), job(1, OTHER, "compile"))
    steps = [(one["at"], one["step"]) if "at" in one else one["id"] for one in said]
    assert steps == [(0, "codegen"), (1, "codegen"), (0, "build"), (0, "run"), 0, (1, "run"), 1]


def test_what_fails_in_eager_is_not_compiled() -> None:
    said = answers(job(0, REDUNDANT, "eager", "compile"), job(1, SOUND, "eager", "compile"))
    judged = [(one["id"], one["stage"], one["judgement"]["passed"]) for one in said if "judgement" in one]
    assert judged == [(0, "eager", False), (1, "eager", True), (1, "compile", True)]


def test_a_fault_of_the_prover_is_the_verdict_of_one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    run = eager.run

    def faulty(asked: Any, case: Any, skip: frozenset[str]) -> Any:
        found: Any = run(asked, case, skip)
        if asked["source"] == SOUND:
            found.outputs = None
        return found

    monkeypatch.setattr(eager, "run", faulty)
    first, second = [
        one["judgement"] for one in answers(job(0, SOUND, "eager"), job(1, OTHER, "eager"))[1::2]
    ]
    assert (first["category"], first["check"]) == ("CRASH", "prover")
    assert second["passed"]


@pytest.mark.parametrize("seed", [DRAW_SEED, DRAW_SEED + 1])
def test_a_brief_run_is_proved_on_its_one_draw(seed: int) -> None:
    """Of a program of GPU size the child writes no more."""
    asked = request(SOUND, brief=True, skip=["deterministic"])
    captured, drawn = streams_of(asked)
    assert not [name for name in captured.tensors if name.startswith("output")]
    assert "draw.1.0" not in drawn.tensors
    found = decide(
        asked,
        Stage.VALIDATE_EAGER,
        lambda: read([captured, drawn], seed, CPU, brief=True),
        lambda case: eager.run(asked, case, frozenset(asked["skip"])),
    )
    assert found["passed"] is (seed == DRAW_SEED), found
    assert found.get("check", "faithful") == "faithful"
