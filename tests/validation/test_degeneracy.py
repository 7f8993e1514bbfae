"""What matters and what does not: disturbances measured on real programs, and the thresholds."""

from __future__ import annotations

import pytest
import torch
from probing import eager, program

from synth_core.validation.judge import degeneracy
from synth_core.validation.tolerance import difference, tolerance_for

LINEAR = "self.linear = nn.Linear(6, 6)"


def failed(source: str, **more: object) -> str:
    verdict = eager(source, reject_rules=[], **more)
    return "" if verdict["passed"] else verdict["check"]


@pytest.mark.parametrize(
    ("forward", "check"),
    [
        ("return self.linear(x)", ""),
        ("return torch.relu(self.linear(x))", ""),
        ("return torch.relu(torch.relu(self.linear(x)))", "operators_matter"),
        ("return torch.relu(torch.sigmoid(self.linear(x)))", "operators_matter"),
        ("return torch.clamp(torch.tanh(self.linear(x)), -2.0, 2.0)", "operators_matter"),
        ("return F.layer_norm(F.layer_norm(self.linear(x), (6,)), (6,))", "operators_matter"),
        ("return self.linear(x).flatten(1)", "operators_matter"),
        ("return self.linear(x)[:, :1].sum(1, keepdim=True)", ""),  # an axis of size 1 has nothing to sum
        ("return self.linear(x) * 1.0", "operators_matter"),
        ("return self.linear(x) + 0.0 * torch.tanh(x)", "operators_matter"),
        ("return F.pad(torch.tanh(self.linear(x)), (0, 6))[:, 6:]", "magnitude"),
        ("return torch.softmax(self.linear(x), -1).sum(-1)", "varies"),
        ("return self.linear(x).mean(0, keepdim=True).expand(4, 6)", "varies"),
        ("return self.linear(x).mean(0, keepdim=True)", ""),  # an axis of one element cannot vary
        ("return self.linear(x) * 1e6", "magnitude"),
        ("return self.linear(x) * 1e-6", "magnitude"),
        ("return torch.softmax(self.linear(x), -1) * 1e-2", ""),  # small, and alive
        ("return self.linear(torch.ones(4, 6) * torch.arange(4.0)[:, None]) + 0.0 * x", "inputs_matter"),
        ("return torch.tanh(x) + 0.0 * self.linear(x)", "weights_matter"),
        ("return F.dropout(self.linear(x), 0.5, self.training)", ""),  # does nothing in eval, as its row says
        ("return self.linear(x).argmax(-1)", ""),  # integers cannot be disturbed, and are not blamed
    ],
)
def test_live_and_degenerate_programs(forward: str, check: str) -> None:
    assert failed(program(forward, LINEAR)) == check


def test_an_operator_that_its_own_inputs_leave_idle_is_only_warned_of() -> None:
    verdict = eager(program("return torch.relu(x) * 2.0", inputs="torch.rand(4, 6)"))
    assert verdict["passed"], verdict
    assert verdict["warnings"] == ("operators_matter",)


@pytest.mark.parametrize(
    ("forward", "init"),
    [
        ("return self.norm(self.linear(x))", "self.norm = nn.BatchNorm1d(6)"),  # untrained, an identity
        ("return self.linear(x) + self.bias", "self.bias = nn.Parameter(torch.zeros(6))"),
        ("return self.linear(x) * self.gain", "self.gain = nn.Parameter(torch.ones(6))"),
    ],
)
def test_a_neutral_starting_value_makes_no_operator_redundant(forward: str, init: str) -> None:
    assert failed(program(forward, f"{LINEAR}\n{init}")) == ""


def test_a_neutral_argument_makes_no_operator_redundant() -> None:
    source = program(
        "return self.linear(x) * self.scale",
        f"{LINEAR}\nself.scale = scale",
        params=", scale",
        init_inputs="[[1.0], {}]",
    )
    assert failed(source) == ""


@pytest.mark.parametrize("name", ["magnitude", "not_zero", "varies", "inputs_matter"])
def test_a_check_can_be_switched_off(name: str) -> None:
    dead = program("return torch.relu(-torch.sigmoid(x))")
    skip = ["magnitude", "not_zero", "varies", "inputs_matter"]
    assert failed(dead, skip=skip) == ""
    assert failed(dead, skip=[check for check in skip if check != name]) == name


def test_zeros_pass_for_an_output_of_zeros_only() -> None:
    tolerance = [tolerance_for(torch.float32)]
    assert degeneracy.passes_as_zero([torch.zeros(8)], tolerance)
    for scale in (1e-6, 1.0, 1e6):
        assert not degeneracy.passes_as_zero([torch.randn(8) * scale], tolerance)


def test_thresholds_do_not_depend_on_scale() -> None:
    alive, dead = torch.randn(8, 8), torch.ones(8, 8) + 1e-6 * torch.randn(8, 8)
    for scale in (1e-5, 1.0, 1e5):
        assert not degeneracy.without_variation([alive * scale])
        assert degeneracy.without_variation([dead * scale])


def test_tolerances() -> None:
    reference = torch.tensor([1.0, -1.0, 0.0, 2.0], dtype=torch.float64)
    tight = tolerance_for(torch.float32)
    assert difference(reference + 1e-5, reference, tight).share == 0.0
    assert difference(reference + 1e-3, reference, tight).share == 1.0
    assert difference(reference.where(reference != 2.0, torch.nan), reference, tight).share == 0.25
    infinite = torch.tensor([torch.inf, torch.nan])
    assert difference(infinite, infinite, tight).share == 0.0
    assert difference(-infinite, infinite, tight).share == 0.5
    assert tolerance_for(torch.float32, ["torch.Tensor.gt"]).outliers > 0.0 == tight.outliers
    assert tolerance_for(torch.float16, ["torch.relu"] * 20).rtol == 20 / 2**11
    assert tolerance_for(torch.int64).rtol == tolerance_for(torch.bool).atol == 0.0
