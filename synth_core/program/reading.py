"""A program as a Python user gives it: the path of a file, the text itself, or a record that has a text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from synth_core.errors import UsageError


@runtime_checkable
class HasSource(Protocol):
    """An object with the text of a program, such as what `synth_core.synthesize` returns."""

    @property
    def source(self) -> str: ...


ProgramLike: TypeAlias = str | os.PathLike[str] | HasSource
"""A path, a text, or an object with a text in `source`.

A string without a line break is a path if it ends in `.py` or if it names something that exists. Any other
string is a text. So an answer of an LLM that is empty, or that is one sentence, is a text.
"""


class Given(NamedTuple):
    """A program that was read. path: None if the text was given."""

    path: Path | None
    source: str


def read_program(program: ProgramLike, *, at_most: int = -1, errors: str = "surrogateescape") -> Given:
    """Read a program.

    Args:
        program: A path or a text, as `ProgramLike` describes.
        at_most: Bytes of a file to read; a negative number means all.
        errors: How to decode bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        UsageError: The path is not a file, the file cannot be read, or `program` is none of these kinds.
    """
    if isinstance(program, str) and not _is_path(program):
        return Given(None, program)
    if not isinstance(program, str | os.PathLike):
        if not isinstance(getattr(program, "source", None), str):
            raise UsageError(f"{type(program).__name__} is not a kind of program; give a path or a text")
        return Given(None, program.source)
    path = Path(program)
    try:
        if not path.is_file():
            raise UsageError(_not_a_file(path))
        with path.open("rb") as stream:
            return Given(path, stream.read(at_most).decode("utf-8-sig", errors))
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r:.200}: {error.strerror}") from None


def _is_path(text: str) -> bool:
    if not text or "\n" in text or "\0" in text:
        return False
    try:
        return text.endswith(".py") or Path(text).exists()
    except OSError:  # longer than any path can be
        return False


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; name Python files"
    return f"{str(path)!r:.200} is not a file; name a Python file, or give the text of a program"
