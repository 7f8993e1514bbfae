"""What counts as a path and what as a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from synth_core.errors import UsageError
from synth_core.program.reading import read_program
from synth_core.records import Program


def test_a_string_is_a_path_if_it_ends_in_py_or_exists(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("a = 1\n")
    other = tmp_path / "no-ending"
    other.write_text("b = 2\n")
    assert read_program(str(file)) == read_program(file) == (file, "a = 1\n")
    assert read_program(str(other)).path == other


@pytest.mark.parametrize("text", ["", "I cannot help with that.", "x = 1\n", "x" * 5000, "a\0b.py"])
def test_an_answer_that_is_no_program_is_a_text(text: str) -> None:
    assert read_program(text) == (None, text)


def test_a_record_with_a_text_is_a_program() -> None:
    assert read_program(Program.of("Net", "class Net: ...")) == (None, "class Net: ...")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.py", "is not a file"),
        (Path("missing"), "is not a file"),
        (".", "is a folder"),
        (7, "int is not a kind"),
    ],
)
def test_anything_else_is_one_clear_line(given: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_program(given)  # type: ignore[arg-type]
