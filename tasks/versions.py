"""The version of a stage: a hash of the code and texts that determine its output for a given input.

So nobody has to remember to raise a number. After an upgrade, work done by older code is done again.
Answers of an LLM are cached elsewhere, by prompt, so nothing is paid for twice.
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
_JUDGES = ("synth_core/validation", "synth_core/graph", *_READERS)
_SAMPLERS = ("synth_core/sampling", "synth_core/strategies.py", "synth_core/filtering")

# Files, and folders with everything below them. The cache keys of filter and persist include the run id
# instead.
_SOURCES: dict[Stage, tuple[str, ...]] = {
    Stage.SAMPLE: (*_SAMPLERS, *_PROMPTS, *_WRITERS),  # a retry may write a repair prompt, and its plan
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
    """Return the files and whole folders whose change makes the stage's earlier work stale."""
    return (*dict.fromkeys(_SOURCES[stage]), "synth_core/records.py", "synth_core/limited.py")


@cache
def stage_version(stage: Stage) -> str:
    """Return the version as eight hexadecimal digits."""
    paths = [_path(name) for name in sources_of(stage)]
    sources = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return sha256("\0".join(file.read_text("utf-8") for file in sources if file.suffix in _TEXTS))[:8]


def torch_release() -> str:
    """Return the installed release without the build, which differs by machine: `2.13.0` of `2.13.0+cpu`."""
    return version("torch").partition("+")[0]


def validation_versions() -> dict[str, str]:
    """Return the versions that a run and a worker of its pool must share, because cache keys contain them."""
    return {"torch": torch_release(), **{stage.value: stage_version(stage) for stage in VALIDATION}}


def _path(name: str) -> Path:
    package, _, rest = name.partition("/")
    return Path(str(files(package))) / rest
