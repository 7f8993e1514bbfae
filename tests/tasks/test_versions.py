"""Old shards never answer for new code: what a stage is made of is part of its version."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from synth_core.records import Stage
from tasks.versions import sources_of

REPOSITORY = Path(__file__).parents[2]
JUDGES = (
    "synth_core.validation.engine",
    "synth_core.validation.reading",
    "synth_core.validation.supervisor.zygote",
)

# Where the work of a stage begins, in our process and in its child processes.
BEGINS: dict[Stage, tuple[str, ...]] = {
    Stage.SAMPLE: ("synth_core.sampling.sample", "synth_core.strategies", "synth_core.filtering.filters"),
    Stage.PROMPT: ("synth_core.prompting",),
    Stage.LLM: ("synth_core.providers.dispatch", "synth_core.synthesis.__main__"),
    Stage.EXTRACT: ("synth_core.extraction",),
    Stage.VALIDATE_EAGER: JUDGES,
    Stage.VALIDATE_COMPILE: JUDGES,
}
# These say where things lie and what went wrong; values of settings are in the key themselves.
SAYS_NOTHING = (
    "synth_core/atomic.py",
    "synth_core/errors.py",
    "synth_core/settings",
    "synth_core/store/",
)


def file_of(module: str) -> Path | None:
    """The module's file, relative to the repository; None where the name is that of no module."""
    stem = module.replace(".", "/")
    candidates = (Path(f"{stem}.py"), Path(stem) / "__init__.py")
    return next((path for path in candidates if (REPOSITORY / path).exists()), None)


def imported(module: str) -> set[str]:
    """All of synth_core that importing this module imports, itself included."""
    known: set[str] = set()
    front = [module]
    while front:
        name = front.pop()
        path = file_of(name)
        if path is None or name in known or not name.startswith("synth_core."):
            continue
        known.add(name)
        for node in ast.walk(ast.parse((REPOSITORY / path).read_text("utf-8"))):
            if isinstance(node, ast.Import):
                front += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                front += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return known


def is_listed(path: str, listed: tuple[str, ...]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in listed)


@pytest.mark.parametrize("stage", BEGINS)
def test_every_module_that_a_stage_imports_is_part_of_its_version(stage: Stage) -> None:
    names = set().union(*map(imported, BEGINS[stage]))
    files = {str(file_of(name)) for name in names}
    assert len(files) > 5
    forgotten = {path for path in files if not is_listed(path, sources_of(stage))}
    assert {path for path in forgotten if not path.startswith(SAYS_NOTHING)} == set()


@pytest.mark.parametrize("stage", Stage)
def test_what_is_listed_exists(stage: Stage) -> None:
    assert [name for name in sources_of(stage) if not (REPOSITORY / name).exists()] == []
