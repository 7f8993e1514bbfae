"""The class is renamed by the syntax tree: its references follow, everything else stays byte for byte."""

from __future__ import annotations

import ast

import pytest

from synth_core.program.naming import MAX_LENGTH, operators_named, program_name
from synth_core.program.renaming import rename_class

_SOURCE = '''# Model: not this Model
import torch
from torch import nn

LIMIT = 3  # é


class Helper:
    pass


class \\
    Model(nn.Module):  # Model
    """A Model, "Model"."""

    Model_size = 4

    def __init__(self):
        super(Model, self).__init__()
        é = "Model"; Model.count = 1

    def forward(self, x):
        return self.Model_size * x


def local(Model):
    return Model


def shadow():
    Model = 1
    return Model


def real():
    global_lambda = lambda Model: Model
    return [Model() for _ in range(2)], {"Model": Model}, global_lambda
'''


def test_only_the_class_changes() -> None:
    renamed = rename_class(_SOURCE, "SynthModel_ReLU")
    expected = _SOURCE.replace("    Model(nn.Module)", "    SynthModel_ReLU(nn.Module)")
    expected = expected.replace("super(Model,", "super(SynthModel_ReLU,")
    expected = expected.replace("; Model.count", "; SynthModel_ReLU.count")
    expected = expected.replace("[Model() for", "[SynthModel_ReLU() for")
    assert renamed == expected.replace('{"Model": Model}', '{"Model": SynthModel_ReLU}')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_survive(end: str) -> None:
    source = f"x = 1{end}class Model:{end}    pass{end}y = Model(){end}"
    assert rename_class(source, "New") == source.replace("Model", "New")


def test_names_in_format_strings_follow() -> None:
    renamed = rename_class('class Model:\n    pass\n\nz = f"""\n\n{Model.x} Model {Model}"""\n', "New")
    names = [node.id for node in ast.walk(ast.parse(renamed)) if isinstance(node, ast.Name)]
    assert "Model" not in names
    assert names.count("New") == 2


def test_a_source_without_a_class_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="no class"):
        rename_class("x = 1\n", "New")


def test_names_and_operators_are_one_another() -> None:
    operators = ("Conv2d", "ReLU", "GlobalAvgPool")
    assert program_name(operators) == "SynthModel_Conv2d_ReLU_GlobalAvgPool"
    assert operators_named(program_name(operators)) == operators
    assert operators_named("SynthModel_Conv2d_ReLU_2") == ("Conv2d", "ReLU")
    assert operators_named("KernelBench_1") is None
    assert operators_named("SynthModel") is None


def test_a_long_name_keeps_what_fits_and_ends_in_a_hash() -> None:
    many = ("AdaptiveAvgPool2d",) * 20
    name = program_name(many)
    assert len(name) <= MAX_LENGTH
    assert name != program_name((*many, "ReLU"))
    named = operators_named(name)
    assert named is not None
    assert set(named) == {"AdaptiveAvgPool2d"}
    assert 5 < len(named) < 20


def test_a_name_in_other_letter_forms_is_the_same_name() -> None:
    """Python takes a fullwidth S for an S."""
    renamed = rename_class("class ＳynthModel:  # stays\n    pass\n\nx = Synthﾍ = SynthModel\n", "New")
    assert renamed == "class New:  # stays\n    pass\n\nx = Synthﾍ = New\n"


def test_many_references_take_linear_time() -> None:
    source = "class Model:\n    pass\n\n" + "Model\n" * 150_000
    assert rename_class(source, "New").count("New") == 150_001
