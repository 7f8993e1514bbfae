"""The version of a stage: a hash of the code and texts that decide what it makes of the same input.

Nobody has to remember to raise a number, and work done by older code is done anew after an upgrade (answers
of an LLM are kept apart, by prompt, so that nothing is paid for twice).
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from synth_core.records import Stage, sha256

VALIDATION = (Stage.VALIDATE_EAGER, Stage.VALIDATE_COMPILE)

_TEXT = ("synth_core/operators", "synth_core/program")
_PROMPTS = ("synth_core/prompting.py", "synth_core/form.py", "prompts", *_TEXT)
_READERS = ("synth_core/extraction.py", "synth_core/form.py", *_TEXT)
_WRITERS = ("synth_core/providers", "synth_core/synthesis", *_READERS)
_JUDGES = ("synth_core/validation", *_READERS)
_SAMPLERS = ("synth_core/sampling", "synth_core/strategies.py", "synth_core/filtering")

# Files, or folders with all that is below them. filter and persist belong to one run and need no more.
_SOURCES: dict[Stage, tuple[str, ...]] = {
    Stage.SAMPLE: (*_SAMPLERS, *_PROMPTS, *_WRITERS),  # it writes the prompts of repairs, with a plan
    Stage.PROMPT: _PROMPTS,
    Stage.LLM: _WRITERS,
    Stage.EXTRACT: _READERS,
    Stage.VALIDATE_EAGER: _JUDGES,
    Stage.VALIDATE_COMPILE: _JUDGES,
    Stage.FILTER: (),
    Stage.PERSIST: (),
}
_TEXTS = (".py", ".j2", ".json", ".toml")


def sources_of(stage: Stage) -> tuple[str, ...]:
    """Files, and folders with all that is below them, whose change makes the stage's earlier work stale."""
    return (*dict.fromkeys(_SOURCES[stage]), "synth_core/records.py")


@cache
def stage_version(stage: Stage) -> str:
    """Eight hexadecimal digits."""
    paths = [_path(name) for name in sources_of(stage)]
    sources = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return sha256("\0".join(file.read_text("utf-8") for file in sources if file.suffix in _TEXTS))[:8]


def torch_release() -> str:
    """The installed release, `2.13.0` of `2.13.0+cpu`: machines with and without a GPU have other builds."""
    return version("torch").partition("+")[0]


def validation_versions() -> dict[str, str]:
    """The versions here of what both sides of a hand-over must have alike; the keys are made of them."""
    return {"torch": torch_release(), **{stage.value: stage_version(stage) for stage in VALIDATION}}


def _path(name: str) -> Path:
    package, _, rest = name.partition("/")
    return Path(str(files(package))) / rest
