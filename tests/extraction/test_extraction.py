"""From answers as models give them to programs, or to the reason why there is none."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_core.extraction import extract_programs, refuses, stated_operators
from synth_core.records import Candidate, Category, Completion, Outcome, Specification, Stage, Verdict

_CLASS = """import torch
import torch.nn as nn


class Model(nn.Module):  # a Model
    def __init__(self):
        super(Model, self).__init__()

    def forward(self, x):
        return torch.relu(x)
"""
_INPUTS = """

def get_inputs():
    return [torch.randn(2, 3)]


def get_init_inputs():
    return [[], {}]
"""
_PROGRAM = _CLASS + _INPUTS


def _extract(text: str, outcome: Outcome = Outcome.OK) -> Candidate:
    specification = Specification(
        operators=("Conv2d", "ReLU"),
        strategy="s",
        seed=1,
        provider="openai",
        prompt="ordered",
        temperature=0.5,
    )
    completion = Completion(outcome=outcome, text=text, requested_model="m")
    (done,) = extract_programs([Candidate(index=0, specification=specification, completion=completion)])
    return done


def _fence(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}```\n"


@pytest.mark.parametrize(
    "text",
    [
        _fence(_PROGRAM),
        "Sure, here it is:\n\n" + _fence(_PROGRAM, "Python") + "\nI hope it helps!",
        _fence(_PROGRAM, ""),
        "~~~py\n" + _PROGRAM + "~~~",
        _PROGRAM,
        "Here is the program:\n\n" + _PROGRAM + "\nIt computes a ReLU of its input.\n",
        "This is from the catalog, import it\nfrom there.\n\n" + _PROGRAM + "Done!\n",
        "<think>class Model? ```python\nx = 1\n```</think>" + _fence(_PROGRAM),
        _fence("class Model:\n    ...\n")
        + "Better:\n"
        + _fence(_PROGRAM)
        + "Run it:\n"
        + _fence("pip install x", "bash"),
        _fence(_PROGRAM) + "Use it like this:\n" + _fence("model = Model()\nprint(model)\n"),
        "First the module:\n" + _fence(_CLASS) + "Then the inputs:\n" + _fence(_INPUTS),
        "1. Program\n\n   ```python\n"
        + "".join(f"   {line}\n" for line in _PROGRAM.splitlines())
        + "   ```\n",
        "\ufeff" + _PROGRAM,
        _fence(_PROGRAM.replace("\n", "\r\n")),
        _fence(_PROGRAM + '\nif __name__ == "__main__":\n    m = Model()\n    print(m(*get_inputs()))\n'),
        _fence(_PROGRAM + "\nprint(Model()(*get_inputs()))\n"),
        "```python\n" + _PROGRAM,  # the fence is never closed
    ],
)
def test_the_program_is_found_among_chatter(text: str) -> None:
    done = _extract(text)
    assert done.program is not None, done.failure
    assert done.program.name == "SynthModel_Conv2d_ReLU"
    tree = ast.parse(done.program.source)
    assert [n.name for n in tree.body if isinstance(n, ast.ClassDef)] == ["SynthModel_Conv2d_ReLU"]
    assert {"get_inputs", "get_init_inputs"} <= {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    assert "print(" not in done.program.source
    assert "super(SynthModel_Conv2d_ReLU, self)" in done.program.source
    assert "# a Model" in done.program.source  # comments are not touched


@pytest.mark.parametrize(
    "line",
    ["BATCH = 4; print(BATCH)", "print(1); BATCH = 4", "print(1); print(\n    2); BATCH = 4"],
)
def test_a_demonstration_takes_no_other_statement_of_its_lines_along(line: str) -> None:
    done = _extract(_fence(_PROGRAM.replace("class Model", f"{line}\n\n\nclass Model")))
    assert done.program is not None
    assert line in done.program.source


def test_a_demonstrations_lines_are_counted_as_python_counts_them() -> None:
    """A form feed and U+2028 end no line of Python's."""
    code = "# \u2028 \x0c \x85\n" + _PROGRAM + "print(1); print(\n    2)\nLAST = 4\n"
    done = _extract(_fence(code))
    assert done.program is not None
    assert done.program.source.startswith("# \u2028 \x0c \x85\nimport torch\n")
    assert done.program.source.endswith("    return [[], {}]\nLAST = 4\n")


def test_the_stated_pattern_names_the_program() -> None:
    done = _extract(_fence(_PROGRAM) + "**Final pattern:** `ReLU`, Swish, NoSuchOperator\n")
    assert done.program is not None
    assert done.program.name == "SynthModel_ReLU_SiLU"


def test_the_last_stated_pattern_counts() -> None:
    text = "Final pattern: Conv2d\nNo, wait.\n# final pattern = ReLU, Conv2d -> Linear\n"
    assert stated_operators(text) == ("ReLU", "Conv2d", "Linear")


@pytest.mark.parametrize(
    ("text", "outcome", "category"),
    [
        ("I'm sorry, but I can't help with that.", Outcome.OK, Category.REFUSAL),
        ("As an AI, I do not write programs.", Outcome.OK, Category.REFUSAL),
        ("Conv2d is a convolution over an image.", Outcome.OK, Category.NO_CODE),
        ("```bash\npip install torch\n```", Outcome.OK, Category.NO_CODE),
        (_fence("class Model(nn.Module:\n    pass\n"), Outcome.OK, Category.SYNTAX_ERROR),
        (_fence("def f(:\n"), Outcome.OK, Category.SYNTAX_ERROR),
        (_fence("x = " + "(" * 5000), Outcome.OK, Category.SYNTAX_ERROR),
        (_fence("x = " + "-" * 200_000 + "1"), Outcome.OK, Category.SYNTAX_ERROR),
        (_fence("class M:\n    x = '\udcff'\n"), Outcome.OK, Category.SYNTAX_ERROR),
        (_fence("class M:\n    x = '\x00'\n"), Outcome.OK, Category.SYNTAX_ERROR),
        (_fence("# " + "x" * 1_100_000 + "\nclass M: pass\n"), Outcome.OK, Category.SYNTAX_ERROR),
        ("```python\n" + _CLASS, Outcome.TRUNCATED, Category.TRUNCATED),
        (_fence(_CLASS) + "```python\ndef get_in", Outcome.TRUNCATED, Category.TRUNCATED),
        ("Let me think about", Outcome.TRUNCATED, Category.TRUNCATED),
    ],
)
def test_why_there_is_no_program(text: str, outcome: Outcome, category: Category) -> None:
    done = _extract(text, outcome)
    assert done.program is None
    assert done.failure is not None
    assert (done.failure.stage, done.failure.category) == ("extract", category)
    assert done.failure.detail


def test_an_answer_cut_after_the_program_is_whole() -> None:
    done = _extract(_fence(_PROGRAM) + "This program first comp", Outcome.TRUNCATED)
    assert done.program is not None


def test_a_refusal_with_code_is_no_refusal() -> None:
    assert refuses("Sorry, I cannot do that.")
    assert not refuses("Sorry for the delay.\n" + _fence(_PROGRAM))
    assert not refuses("The model returns I cannot.")


def test_dead_candidates_pass_untouched() -> None:
    dead = _extract("nothing")
    dead = dead.model_copy(update={"verdicts": (Verdict.fail(Stage.LLM, Category.PROVIDER_ERROR, "x"),)})
    assert extract_programs([dead]) == [dead]


_PIECES = st.sampled_from(
    [
        "```",
        "```python\n",
        "~~~",
        "\n",
        "class M(nn.Module):\n",
        "  def forward(self, x):\n",
        "    return x\n",
        "import x\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_PIECES | st.text(max_size=20), max_size=12), st.sampled_from([Outcome.OK, Outcome.TRUNCATED])
)
def test_no_text_makes_it_raise(pieces: list[str], outcome: Outcome) -> None:
    done = _extract("".join(pieces), outcome)
    assert done.program is not None or done.failure is not None


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 100_000 + _fence(_PROGRAM),
        _fence(_PROGRAM) + " \t" * 100_000 + "final pattern",
        "```" + "a" * 200_000 + "`\n" + _fence(_PROGRAM),
        _fence("print(1)\n" * 20_000 + _PROGRAM),
    ],
    ids=["blank lines", "spaces", "a fence that is none", "prints"],
)
def test_a_program_is_found_in_any_amount_of_padding(text: str) -> None:
    """The child's CPU limit is what fails here if a step takes more than linear time."""
    assert _extract(text).program is not None


@pytest.mark.parametrize(
    "text",
    [
        "@a\n" * 5_000,
        "\n" * 300_000,
        _fence("x = " + "not " * 7_000 + "1\n" + _PROGRAM),
        _fence("x = " + "-" * 400_000 + "1\n" + _PROGRAM),
        _fence("x = [" + "a," * 60_000 + "]\n" + _PROGRAM.replace("Model", "ＳynthModel")),
        "class " * 100_000,
        _fence("\ud800" + _PROGRAM),
    ],
    ids=["decorators", "nothing", "nots", "minuses", "a long list", "classes", "half a surrogate pair"],
)
def test_an_answer_that_breaks_parsers_is_a_verdict(text: str) -> None:
    done = _extract(text)
    failure = done.failure
    assert done.program or failure
    assert failure is None or failure.detail
