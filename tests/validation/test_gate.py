"""The static gate: any text gets an answer, and quickly."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probing import program

from synth_core.records import Category
from synth_core.validation.gate import MAX_BYTES, check_source

LINEAR = program("return self.linear(x)", "self.linear = nn.Linear(6, 3)")


def category(source: str) -> Category | None:
    failure = check_source(source)
    return failure["category"] if failure else None


def test_an_ordinary_program_passes() -> None:
    assert check_source(LINEAR) is None


@pytest.mark.parametrize(
    "imports",
    [
        "import math",
        "import numpy as np",
        "from typing import Optional",
        "from torch import Tensor",
        "from torch.nn import functional as G",
        "import torch.nn.functional as G",
        "from torch.nn.utils.rnn import pack_padded_sequence",
        "G = torch.nn.functional",
        "WIDTH = getattr",
    ],
)
def test_what_tensor_code_imports(imports: str) -> None:
    wanted = Category.DISALLOWED_IMPORT if "getattr" in imports else None
    assert category(program("return self.linear(x)", "self.linear = nn.Linear(6, 3)", top=imports)) is wanted


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "import os.path as path",
        "from os import system",
        "from . import secrets",
        "from torch import *",
        "from torch import os",
        "from torch.utils import cpp_extension",
        "import torch.utils.cpp_extension",
        "from random import _os",
        "torch.load('x')",
        "torch.ops.load_library('x')",
        "torch.os.system('true')",
        "F.importlib.import_module('os')",
        "nn.functional.importlib.import_module('os')",
        "torch.nn.Module.__subclasses__()",
        "().__class__.__base__.__subclasses__()",
        "'{0.__class__}'.format(1)",
        "eval('1')",
        "e = exec",
        "open('/etc/passwd')",
        "__import__('os')",
        "__builtins__['eval']",
        "getattr(torch, 'load')('x')",
        "getattr(torch, 'o' + 's')",
        "t = torch\nt.os.system('true')",
        "[torch][0].os",
        "G = torch.nn.functional\nG.importlib.import_module('os')",
        "import typing\ntyping.ForwardRef('x')",
        "import typing\ntyping.sys.exit()",
        "import warnings\nwarnings.sys",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "torch.tensor(1).untyped_storage()",
        "from builtins import eval",
        "torch.compile(print)",
        "globals()",
        "(i for i in ()).gi_frame",
        "FRAME = None\nFRAME.f_back.f_locals",
        "torch.relu = torch.tanh",
        "del nn.Linear.forward",
        "vars()",
    ],
)
def test_what_reaches_out(line: str) -> None:
    source = program("return self.linear(x)", "self.linear = nn.Linear(6, 3)", top=line)
    assert category(source) is Category.DISALLOWED_IMPORT


@pytest.mark.parametrize(
    "line", ["getattr(self, 'linear')", "getattr(self, f'layer{0}')", "self._scale = 2.0"]
)
def test_a_program_reaches_its_own_attributes(line: str) -> None:
    assert category(program(f"{line}\nreturn self.linear(x)", "self.linear = nn.Linear(6, 3)")) is None


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("", Category.SYNTAX_ERROR),
        ("  \n\t\n", Category.SYNTAX_ERROR),
        ("\0\x01\x02", Category.SYNTAX_ERROR),
        ("\x7fELF\x02\x01\x01", Category.SYNTAX_ERROR),
        ("x = '\ud800'", Category.SYNTAX_ERROR),
        ("x" * (MAX_BYTES + 1), Category.SYNTAX_ERROR),
        ("x\n" * 5_000_000, Category.SYNTAX_ERROR),
        ("def f(:", Category.SYNTAX_ERROR),
        ("(" * 150 + ")" * 150, Category.SYNTAX_ERROR),
        ("-" * 100_000 + "1", Category.SYNTAX_ERROR),
        ("a" + ".b" * 100_000, Category.SYNTAX_ERROR),
        ("x = 1" + " + 1" * 200_000, Category.SYNTAX_ERROR),
        ("class P(a" + ".b" * 900 + "):\n    pass", Category.CONTRACT_VIOLATION),
        ("x = " + "9" * 5000, Category.SYNTAX_ERROR),
        ("x = '\\d'", Category.CONTRACT_VIOLATION),  # a warning of the parser is nobody's error
        ("print('hello')", Category.CONTRACT_VIOLATION),
        (LINEAR.replace("(nn.Module)", ""), Category.CONTRACT_VIOLATION),
        (LINEAR.replace("def forward", "def backward"), Category.CONTRACT_VIOLATION),
        (LINEAR.replace("def get_inputs", "def inputs"), Category.CONTRACT_VIOLATION),
        (LINEAR.replace("def get_init_inputs", "def init_inputs"), Category.CONTRACT_VIOLATION),
        (LINEAR + "class Second(nn.Module):\n    pass\n", Category.CONTRACT_VIOLATION),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, str) else value,
)
def test_texts_that_are_no_program(source: str, wanted: Category) -> None:
    began = time.process_time()
    assert category(source) is wanted
    assert time.process_time() - began < 5.0


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=300))
def test_any_text_gets_an_answer(source: str) -> None:
    failure = check_source(source)
    assert failure is not None
    assert failure["detail"]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(LINEAR)), st.integers(0, len(LINEAR)), st.text(max_size=8))
def test_any_damage_to_a_program_gets_an_answer(start: int, end: int, patch: str) -> None:
    failure = check_source(LINEAR[: min(start, end)] + patch + LINEAR[max(start, end) :])
    assert failure is None or failure["check"] == "static"
