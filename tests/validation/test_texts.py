"""What the engine learns from a text alone."""

from __future__ import annotations

from typing import Any

import pytest
from probing import NAME, program

from synth_core.program.renaming import rename_class
from synth_core.records import Category
from synth_core.validation.reading import read, rename

PLAIN = program("return self.linear(x)", "self.linear = nn.Linear(6, 3)")


def reading(source: str, name: str = NAME, gated: bool = False) -> dict[str, Any]:
    found = read(source, name, gated)
    assert found["failure"] is None, found
    return found


def test_the_seed_depends_on_the_text_and_not_on_the_name_of_its_class() -> None:
    renamed = rename(PLAIN, "SynthModel_Other")
    assert renamed == rename_class(PLAIN, "SynthModel_Other") != PLAIN
    assert reading(renamed, "SynthModel_Other")["seed"] == reading(PLAIN)["seed"]
    assert reading(PLAIN + "# more\n")["seed"] != reading(PLAIN)["seed"]


@pytest.mark.parametrize(
    ("forward", "literal"),
    [("return x * 2, x * 3", True), ("return x * 2", False), ("pair = (x, x)\nreturn pair", False)],
)
def test_a_tuple_counts_where_it_is_written_out(forward: str, literal: bool) -> None:
    assert reading(program(forward))["literal_tuple"] is literal


def test_numbers_are_those_that_the_class_is_given() -> None:
    source = program(
        "return x * 0.25", params=", scale, width", init_inputs="[[SCALE, -1.5], {'width': 3}]",
        top="SCALE = OTHER * 2\nOTHER = 0.5\nUNREAD = 7.5",
    )  # fmt: skip
    assert reading(source)["numbers"] == [-1.5, -0.5, 0.5, 1.5]


def test_the_gate_is_asked_only_where_it_is_wanted() -> None:
    source = program("return x * 2", top="import os")
    assert read(source, NAME, True)["failure"]["category"] is Category.DISALLOWED_IMPORT
    assert reading(source)["rules"]["one_return"]


@pytest.mark.parametrize(
    "source",
    [
        "# -*- coding: utf-7 -*-\n" + PLAIN,
        "#!/usr/bin/python\n# vim: set fileencoding=latin-1 :\n" + PLAIN,
        "# coding: no-such-encoding\n" + PLAIN,
        "\ufeff# coding: latin-1\n" + PLAIN,
        PLAIN + "x = '\ud800'\n",
    ],
)
def test_a_text_that_python_would_read_otherwise_is_refused(source: str) -> None:
    failure = read(source, NAME, False)["failure"]
    assert failure["category"] is Category.SYNTAX_ERROR
    assert failure["check"] == "builds"


@pytest.mark.parametrize("cookie", ["", "# coding: utf-8\n", "# -*- coding: UTF-8 -*-\n", "\ufeff"])
def test_a_text_in_utf_8_may_say_so(cookie: str) -> None:
    assert reading(cookie + PLAIN)["seed"] >= 0


@pytest.mark.parametrize("source", ["", "def f(:", "(" * 10_000, "x = 1" + " + 1" * 100_000, "\0"])
def test_a_text_that_is_no_program_is_read_all_the_same(source: str) -> None:
    """With the gate switched off the process that runs it says what is wrong."""
    found = read(source, NAME, False)
    assert found["failure"] or {"rules", "literal_tuple", "numbers", "seed"} <= set(found)
