"""Ends: how a process ended, as the judgement that the engine keeps."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_core.records import Category, Stage, Verdict
from synth_core.validation import ends
from synth_core.validation.evidence import Observation
from synth_core.validation.sandbox import HARNESS_FAILED

SECONDS, MEGABYTES = 8.0, 1024


def judgement(words: str = "", prover: bool = False, **observed: Any) -> dict[str, Any]:
    """What is made of an answer about a process that ended without a judgement."""
    answer = {"observed": asdict(Observation(**observed)), "files": [words.encode()], "prover": prover}
    found = ends.judgement(answer, SECONDS, MEGABYTES)
    fields = {name: value for name, value in found.items() if name != "graph"}
    Verdict.model_validate({"stage": Stage.VALIDATE_EAGER, **fields})
    return found


@pytest.mark.parametrize(
    ("observed", "category", "detail"),
    [
        ({"violation": "it opened a socket", "signal": 31}, Category.SANDBOX_VIOLATION, "it opened a socket"),
        ({"timed_out": True, "signal": 9}, Category.TIMEOUT, "8 CPU seconds"),
        ({"out_of_memory": True, "signal": 9}, Category.OUT_OF_MEMORY, "1024 MiB"),
        ({"signal": signal.SIGSEGV}, Category.CRASH, "SIGSEGV"),
        ({"exit_code": 3}, Category.CRASH, "exit code 3"),
        ({"exit_code": 0}, Category.CRASH, "exit code 0"),
    ],
)
def test_the_end_of_a_program(observed: dict[str, Any], category: Category, detail: str) -> None:
    found = judgement(**observed)
    assert (found["passed"], found["category"]) == (False, category)
    assert detail in found["detail"]


@pytest.mark.parametrize(
    ("observed", "words", "category"),
    [
        ({"timed_out": True}, "", Category.TIMEOUT),
        ({"out_of_memory": True}, "", Category.OUT_OF_MEMORY),
        ({"signal": 6}, "terminate: std::bad_alloc", Category.OUT_OF_MEMORY),
        ({"signal": 11}, "", Category.CRASH),
    ],
)
def test_the_end_of_a_prover_is_its_case_s(observed: dict[str, Any], words: str, category: Category) -> None:
    found = judgement(words, prover=True, **observed)
    assert (found["passed"], found["category"]) == (False, category)
    assert "prov" in found["detail"]


def test_a_frame_that_runs_out_of_memory_is_no_crash() -> None:
    assert judgement("MemoryError", exit_code=HARNESS_FAILED)["category"] is Category.OUT_OF_MEMORY
    assert judgement("MemoryError", exit_code=1)["category"] is Category.CRASH
    assert judgement("KeyError: 3", exit_code=HARNESS_FAILED)["category"] is Category.CRASH


def test_last_words_are_one_printable_line_of_bounded_length() -> None:
    detail = judgement("first\n\x1b[2J\x00last " + "x" * 5000, signal=6)["detail"]
    assert detail.isprintable()
    assert "first" not in detail
    assert "last" in detail
    assert len(detail) <= 1000


def test_a_judgement_of_a_prover_is_taken_as_it_is() -> None:
    kept = {"passed": True, "graph": None}
    assert ends.judgement({"judged": True, "files": [json.dumps(kept).encode()]}, SECONDS, MEGABYTES) == kept


def rehearsal(said: bytes) -> dict[str, Any]:
    return ends.rehearsal({"files": [said]}, SECONDS, MEGABYTES)


def test_a_rehearsal_gives_its_digests_and_no_more() -> None:
    said = {"output": ["a"], "state": {"w": "b"}, "passed": True, "surplus": 1}
    assert rehearsal(json.dumps(said).encode()) == {"output": ["a"], "state": {"w": "b"}}


def test_a_rehearsal_that_raised_is_a_failure() -> None:
    error = {"kinds": ["KeyError"], "message": "'x'", "phase": "runs", "where": ""}
    found = rehearsal(json.dumps({"error": error}).encode())
    assert (found["passed"], found["category"], found["check"]) == (False, Category.EXCEPTION, "runs")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SAID = st.fixed_dictionaries({}, optional={"output": JSON, "state": JSON, "error": JSON})


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=50) | (JSON | SAID).map(lambda value: json.dumps(value).encode()))
def test_whatever_a_rehearsal_says_it_passes_nothing(said: bytes) -> None:
    found = rehearsal(said)
    assert found.get("passed") is False or set(found) == {"output", "state"}


@pytest.mark.parametrize("said", [b"[" * 2**17, b" " * 2**21, b'{"output": 1, "state": 2}', b""])
def test_a_rehearsal_that_makes_no_sense_is_a_crash(said: bytes) -> None:
    assert rehearsal(said)["category"] is Category.CRASH
