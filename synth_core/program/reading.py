"""A program as a Python user gives it: the path of a file, or the text itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, TypeAlias

from synth_core.errors import UsageError

ProgramLike: TypeAlias = str | os.PathLike[str]
"""A path or a text. A `Path`, or a string without a line break, is a path; any other string is a text."""


class Given(NamedTuple):
    """A program that was read. path: None where the text was given."""

    path: Path | None
    source: str


def read_program(program: ProgramLike, *, at_most: int = -1, errors: str = "surrogateescape") -> Given:
    """Read a program.

    Args:
        program: A path or a text, told apart as `ProgramLike` says.
        at_most: Bytes of a file to read; a negative number means all.
        errors: What becomes of bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        UsageError: The path is no file, or the file cannot be read.
    """
    if isinstance(program, str) and "\n" in program:
        return Given(None, program)
    path = Path(program)
    try:
        if not path.is_file():
            raise UsageError(_no_file(path))
        with path.open("rb") as stream:
            return Given(path, stream.read(at_most).decode("utf-8-sig", errors))
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r:.200}: {error.strerror}") from None


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; name Python files"
    return f"{str(path)!r:.200} is no file; name Python files, or give a text, which has line breaks"
