"""One failing program per category, each judged by the real stages: `# expect: STAGE/CATEGORY` heads it.

Further headers: `# check: NAME` (which check must fail), `# outcome:` (how the provider's call ended),
`# program` (text that is a program, though not Python), `# unguarded:` (with the static gate off),
`# after: FILE` (a program that the folder holds already).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from synth_core.extraction import extract_programs
from synth_core.filtering import Filter
from synth_core.program.naming import operators_named
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import (
    Candidate,
    Category,
    Completion,
    Outcome,
    Program,
    Prompt,
    Specification,
    Stage,
    Verdict,
)
from synth_core.settings import ProviderSettings, Settings, ValidationSettings
from synth_core.validation.engine import Engine

CORPUS = Path(__file__).parents[1] / "corpus"
FILES = sorted(path for path in CORPUS.iterdir() if path.suffix in (".py", ".txt"))
TIMEOUT = 30.0

Judged = dict[str, Candidate]


def header(file: Path, key: str) -> str:
    found = re.search(rf"^# {key}(?:: (.*))?$", file.read_text(), re.MULTILINE)
    return (found[1] or "yes") if found else ""


def candidate(index: int, file: Path) -> Candidate:
    """A file as the candidate that its first stage would be handed."""
    text = file.read_text()
    operators = re.search(r"class (SynthModel_\w+)", text)
    specification = Specification(
        operators=(operators_named(operators[1]) if operators else None) or ("Linear",),
        strategy="corpus",
        seed=index,
        provider="local",
        prompt="ordered",
        temperature=0.5,
    )
    if file.suffix == ".py" or header(file, "program"):
        name = operators[1] if operators else "SynthModel_Linear"
        return Candidate(index=index, specification=specification, program=Program.of(name, text))
    if header(file, "expect").startswith("llm/"):
        prompt = Prompt(template="ordered", system="", text="write", digest="0" * 64)
        return Candidate(index=index, specification=specification, prompt=prompt)
    answer = text.split("\n", 1)[1]
    completion = Completion(
        outcome=Outcome(header(file, "outcome") or "ok"), text=answer, requested_model="none"
    )
    return Candidate(index=index, specification=specification, completion=completion)


def validated(candidates: Sequence[Candidate], settings: ValidationSettings, cache: Path) -> list[Candidate]:
    with Engine(settings, workers=2, cache_dir=str(cache)) as engine:
        return engine.validate_compile(engine.validate_eager(candidates))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, warm_up: Callable[[Path], Path]) -> Judged:
    """Every file after all stages, those of one kind in one batch, as the flow would do it."""
    folder = tmp_path_factory.mktemp("corpus")
    warm_up(folder / "cache")
    done = {file.name: candidate(index, file) for index, file in enumerate(FILES)}
    done = each(done, answered_by_nobody, lambda one: one.program is None and one.completion is None)
    done = each(done, extract_programs, lambda one: one.completion is not None)
    open_gate = {file.name for file in FILES if header(file, "unguarded")}
    for names, settings in (
        (set(done) - open_gate, ValidationSettings(timeout=TIMEOUT)),
        (open_gate, ValidationSettings(timeout=TIMEOUT, skip_checks=("static",))),
    ):
        part = {name: one for name, one in done.items() if name in names and one.program}
        done |= dict(zip(part, validated(list(part.values()), settings, folder / "cache"), strict=True))
    # The original of a duplicate comes first, as it would lie in the folder already.
    order = sorted(done, key=lambda name: bool(header(CORPUS / name, "after")))
    kept = Filter(folder / "programs", "run").apply([done[name] for name in order])
    return dict(zip(order, kept, strict=True))


def each(done: Judged, stage: object, chosen: object) -> Judged:
    part = {name: one for name, one in done.items() if chosen(one)}  # type: ignore[operator]
    return done | dict(zip(part, stage(list(part.values())), strict=True))  # type: ignore[operator]


def answered_by_nobody(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Ask a server that does not exist: a port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings(
        model_name="local",
        provider=ProviderSettings(base_url=f"http://127.0.0.1:{port}/v1", model_id="none", retries=0),
    ).resolved()
    dispatcher = Dispatcher(settings)
    try:
        return dispatcher.complete(candidates)
    finally:
        dispatcher.close()


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_program_fails_where_its_header_says(file: Path, judged: Judged) -> None:
    failure = judged[file.name].failure
    if header(file, "expect") == "accepted":
        assert failure is None
        return
    assert failure is not None, "it was accepted"
    assert f"{failure.stage}/{failure.category}" == header(file, "expect"), failure.detail
    assert failure.check == (header(file, "check") or failure.check), failure.detail
    assert failure.detail
    assert "\n" not in failure.detail


def test_every_category_has_a_file() -> None:
    """All but COMPILE_ERROR: no program is known that torch can capture and Inductor cannot compile.

    test_kernels.py and test_judge.py hold tests of it.
    """
    covered = {header(file, "expect").partition("/")[2] for file in FILES} - {""}
    assert covered == {category.value for category in Category} - {Category.COMPILE_ERROR.value}


def test_headers_name_stages() -> None:
    stages = {header(file, "expect").partition("/")[0] for file in FILES} - {"accepted"}
    assert stages <= {stage.value for stage in Stage}


@pytest.mark.slow
def test_accepted_programs_carry_tier_and_tolerance(judged: Judged) -> None:
    verdicts: list[Verdict] = list(judged["duplicate_original.py"].verdicts)
    compiled = next(verdict for verdict in verdicts if verdict.stage is Stage.VALIDATE_COMPILE)
    assert compiled.tier is not None
    assert compiled.measured["tolerance"][0]["rtol"] > 0
