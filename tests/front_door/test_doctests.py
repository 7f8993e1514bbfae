"""The examples in the docstrings of all public functions and classes, run as they stand."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import synth_core
from synth_core.records import Candidate, Specification
from synth_core.settings import Settings
from synth_core.store import append_ledger, plan_run, save_run

EXAMPLES = {
    name: example
    for name in synth_core.__all__
    for example in doctest.DocTestFinder(recurse=False).find(getattr(synth_core, name), name)
    if example.examples
}
STARTS_A_WORKER = {"Validator"}


def test_every_function_has_an_example() -> None:
    assert set(EXAMPLES) == {"Validator", "read_ledger", "scan", "synthesize", "validate"}


@pytest.fixture
def folder_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with `synth-output` and a run of two candidates in it."""
    monkeypatch.chdir(tmp_path)
    run = save_run(plan_run(Settings(output_dir="synth-output", seed=1)))
    specification = Specification(
        operators=("ReLU",), strategy="balanced", seed=1, provider="p", prompt="ordered", temperature=0.0
    )
    append_ledger(run, [Candidate(index=i, specification=specification) for i in (0, 1)], round=0, batch=0)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in STARTS_A_WORKER)) for name in EXAMPLES],
)
@pytest.mark.usefixtures("folder_of_a_run")
def test_example(name: str) -> None:
    said: list[str] = []
    result = doctest.DocTestRunner().run(EXAMPLES[name], out=said.append)
    assert result.attempted == len(EXAMPLES[name].examples) > 0
    assert result.failed == 0, "".join(said)
