"""The public call: a verdict for any file, one clear line for what is no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from probing import program

import synth_core
from synth_core.errors import UsageError
from synth_core.records import Category, Stage
from synth_core.settings import ValidationSettings
from synth_core.validation.public import validate_files


@pytest.mark.parametrize(
    ("content", "category"),
    [
        (b"", Category.SYNTAX_ERROR),
        (b"\x7fELF\x00\x01\xff\xfe", Category.SYNTAX_ERROR),
        (b"\xff\xfe\xff", Category.SYNTAX_ERROR),
        (b"x = 1\n" * 2_000_000, Category.SYNTAX_ERROR),
        (b"def f(:\n", Category.SYNTAX_ERROR),
        (b"x = 1\n", Category.CONTRACT_VIOLATION),
        (b"import torch\nclass A(torch.nn.Module): pass\nclass B: pass\n", Category.CONTRACT_VIOLATION),
        (program("return x * 2", top="import socket").encode(), Category.DISALLOWED_IMPORT),
    ],
    ids=["empty", "binary", "not UTF-8", "12 MB", "unparsable", "no class", "two classes", "import"],
)
def test_a_bad_file_is_a_verdict(content: bytes, category: Category, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_bytes(content)
    found = synth_core.validate(path)
    assert (found.accepted, found.stage, found.category) == (False, Stage.VALIDATE_EAGER, category)
    assert found.detail
    assert found.path == str(path)


def test_what_is_no_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        synth_core.validate(tmp_path / "missing.py")
    with pytest.raises(UsageError, match="a folder"):
        synth_core.validate(tmp_path)
    with pytest.raises(UsageError, match="unknown check"):
        next(validate_files([__file__], ValidationSettings(skip_checks=("no_such_check",)), workers=1))


@pytest.mark.slow
def test_files_are_held_to_their_names(tmp_path: Path, warm_up: Callable[[Path], Path]) -> None:
    source = program("return torch.tanh(self.linear(x))", "self.linear = nn.Linear(6, 3)")
    stems = ("SynthModel_Tanh_Linear", "SynthModel_Linear_ReLU", "SynthModel_NoSuchThing", "anything")
    for stem in stems:
        (tmp_path / f"{stem}.py").write_text(source.replace("SynthModel_Program", stem))
    paths = [tmp_path / f"{stem}.py" for stem in stems]
    found = list(validate_files(paths, ValidationSettings(), 2, str(warm_up(tmp_path / "cache"))))
    assert [one.category for one in found] == [
        None,
        Category.OPERATORS_MISSING,
        Category.OPERATORS_MISSING,
        None,
    ]
    assert [one.path for one in found] == [str(path) for path in paths]
    assert found[0].realised_operators == ("Linear", "Tanh")
    assert found[0].contract["one_graph"]
    assert found[0].tier is not None
