"""The version of a stage: a hash of the code and texts that decide what it makes of the same input.

Nobody has to remember to raise a number, and work done by older code is done anew after an upgrade (answers
of an LLM are kept apart, by prompt, so that nothing is paid for twice).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from synth_core.records import Stage, sha256

_OPERATORS = "synth_core/operators"
_JUDGES = ("synth_core/validation", _OPERATORS, "synth_core/naming.py", "synth_core/extraction.py")

# Files, or folders with all that is below them. filter and persist belong to one run and need no more.
_DECIDE: dict[Stage, tuple[str, ...]] = {
    Stage.SAMPLE: ("synth_core/sampling.py", "synth_core/strategies.py", _OPERATORS),
    Stage.PROMPT: ("synth_core/prompting.py", "prompts"),
    Stage.LLM: ("synth_core/providers", "synth_core/synthesis", _OPERATORS),
    Stage.EXTRACT: ("synth_core/extraction.py", "synth_core/naming.py"),
    Stage.VALIDATE_EAGER: _JUDGES,
    Stage.VALIDATE_COMPILE: _JUDGES,
    Stage.FILTER: (),
    Stage.PERSIST: (),
}
_TEXTS = (".py", ".j2", ".json", ".toml")


@cache
def stage_version(stage: Stage) -> str:
    """Eight hexadecimal digits."""
    paths = [_path(name) for name in (*_DECIDE[stage], "synth_core/records.py")]
    sources = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return sha256("\0".join(file.read_text("utf-8") for file in sources if file.suffix in _TEXTS))[:8]


def _path(name: str) -> Path:
    package, _, rest = name.partition("/")
    return Path(str(files(package))) / rest
