"""Validate files from anywhere: the public call behind `synth_core.validate(path)` and `synth validate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from synth_core.errors import UsageError
from synth_core.program.naming import operators_named
from synth_core.records import Candidate, Category, Program, Record, Specification, Stage, Tier
from synth_core.settings import Settings, ValidationSettings
from synth_core.validation.engine import Engine
from synth_core.validation.gate import MAX_BYTES

BATCH = 64


class Validation(Record):
    """What validation says of one file. `stage`, `category` and `detail` tell why it was not accepted."""

    path: str
    accepted: bool
    stage: Stage | None = None
    category: Category | None = None
    detail: str = ""
    tier: Tier | None = None
    realised_operators: tuple[str, ...] = ()
    contract: dict[str, bool] = Field(default_factory=dict)


def validate(path: str | Path, settings: ValidationSettings | None = None) -> Validation:
    """Prove one program sound: static gate, eager, torch.compile; the program runs in a sandbox.

    A file called `SynthModel_<Op>_<Op>….py` must realise the operators in its name, in any order.
    Raises UsageError for a path that is no file. For many files `validate_files` keeps its worker warm.
    """
    return next(validate_files([path], settings or ValidationSettings(), workers=1))


def validate_files(
    paths: Sequence[str | Path], settings: ValidationSettings, workers: int, cache_dir: str | None = None
) -> Iterator[Validation]:
    """Validate files in order, `workers` at a time; raise UsageError before the first if one is no file.

    cache_dir: where verdicts are kept; None means the user's cache folder.
    """
    files = [Path(path) for path in paths]
    for file in files:
        if not file.is_file():
            raise UsageError(f"{file} is {'a folder' if file.is_dir() else 'no file'}; name Python files")
    return _validated(files, settings, workers, cache_dir or Settings().resolved().cache_dir)


def _validated(
    files: Sequence[Path], settings: ValidationSettings, workers: int, cache_dir: str
) -> Iterator[Validation]:
    with Engine(settings, workers, cache_dir) as engine:
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            candidates = [_candidate(index, file) for index, file in enumerate(batch, start)]
            done = engine.validate_compile(engine.validate_eager(candidates))
            yield from (_result(file, candidate) for file, candidate in zip(batch, done, strict=True))


def _candidate(index: int, file: Path) -> Candidate:
    with file.open("rb") as stream:
        text = stream.read(MAX_BYTES + 1).decode("utf-8-sig", "surrogateescape")
    specification = Specification(
        operators=operators_named(file.stem) or (),
        strategy="",
        seed=0,
        provider="",
        prompt="",
        temperature=0.0,
    )
    return Candidate(index=index, specification=specification, program=Program.of(file.stem, text))


def _result(file: Path, candidate: Candidate) -> Validation:
    failure = candidate.failure
    contract = {rule: holds for verdict in candidate.verdicts for rule, holds in verdict.contract.items()}
    return Validation(
        path=str(file),
        accepted=failure is None,
        stage=failure.stage if failure else None,
        category=failure.category if failure else None,
        detail=failure.detail if failure else "",
        tier=next((verdict.tier for verdict in candidate.verdicts if verdict.tier), None),
        realised_operators=candidate.graph.operators if candidate.graph else (),
        contract=contract,
    )
