"""The public call: a verdict for any file, one clear line for what is no file."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from probing import program

import synth_core
from synth_core.errors import UsageError
from synth_core.records import Category, Stage
from synth_core.settings import ValidationSettings
from synth_core.validation.public import AHEAD


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
    with pytest.raises(UsageError, match="not a file"):
        synth_core.validate(tmp_path / "missing.py")
    with pytest.raises(UsageError, match="a folder"):
        synth_core.validate(tmp_path)
    with pytest.raises(UsageError, match="cannot read"):
        synth_core.validate("x" * 10_000 + ".py")
    with pytest.raises(UsageError, match="unknown check"):
        synth_core.Validator(ValidationSettings(skip_checks=("no_such_check",)))
    with pytest.raises(UsageError, match="workers must be 0 or more"):
        synth_core.Validator(workers=-1)


def test_a_string_with_a_line_break_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text("import socket\n")
    for given in (path, str(path), "import socket\n"):
        found = synth_core.validate(given)
        assert found.category is Category.CONTRACT_VIOLATION
        assert found.path == ("" if given == "import socket\n" else str(path))


def test_an_error_comes_in_its_place(tmp_path: Path) -> None:
    """The results of the programs before it come first."""
    with synth_core.Validator(workers=1) as validator:
        results = validator.validate_many(["x = (\n", tmp_path / "missing.py", "x = 1\n"])
        assert next(results).category is Category.SYNTAX_ERROR
        with pytest.raises(UsageError, match="not a file"):
            next(results)
        with pytest.raises(UsageError, match="not a file"):
            list(validator.as_completed([tmp_path / "missing.py"]))
        assert list(validator.validate_many([])) == []
        assert list(validator.as_completed([])) == []


def test_a_closed_validator_says_so() -> None:
    validator = synth_core.Validator(workers=1)
    validator.close()
    validator.close()
    with pytest.raises(UsageError, match="closed"):
        validator.validate("x = 1\n")


def test_a_forked_process_is_told_to_make_its_own() -> None:
    def there() -> None:
        code = 1
        try:
            validator.validate("x = 1\n")
        except UsageError:
            code = 0
        finally:
            os._exit(code)  # at once: what other tests have registered to run at an exit may fail in a fork

    with synth_core.Validator(workers=1) as validator:
        process = multiprocessing.get_context("fork").Process(target=there)
        process.start()
        process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("name", ["validate_many", "as_completed"])
def test_programs_are_read_as_the_work_proceeds(name: str) -> None:
    """An endless stream of programs is fine, and no more of it is read than there is work for."""
    read = itertools.count()
    with synth_core.Validator(workers=1) as validator:
        endless = (f"x = {next(read)}\n" for _ in itertools.count())
        assert len(list(itertools.islice(getattr(validator, name)(endless), 200))) == 200
    assert next(read) <= 200 + AHEAD


@pytest.mark.slow
def test_files_are_held_to_their_names(tmp_path: Path, warm_up: Callable[[Path], Path]) -> None:
    source = program("return torch.tanh(self.linear(x))", "self.linear = nn.Linear(6, 3)")
    stems = ("SynthModel_Tanh_Linear", "SynthModel_Linear_ReLU", "SynthModel_NoSuchThing", "anything")
    for stem in stems:
        (tmp_path / f"{stem}.py").write_text(source.replace("SynthModel_Program", stem))
    paths = [tmp_path / f"{stem}.py" for stem in stems]
    with synth_core.Validator(workers=2, cache_dir=warm_up(tmp_path / "cache")) as validator:
        found = list(validator.validate_many(paths))
        pairs = dict(validator.as_completed(paths))
        texts = list(validator.validate_many(path.read_text() for path in paths))
    assert [pairs[path] for path in paths] == found
    # A text is called as its class is.
    assert [one.model_copy(update={"path": ""}) for one in found] == texts
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
    assert found[0].measured[Stage.VALIDATE_COMPILE]
