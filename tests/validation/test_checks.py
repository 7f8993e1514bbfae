"""Every check by its name: alone it rejects a program that breaks it, switched off it lets that one pass."""

from __future__ import annotations

from typing import Any

import pytest
from probing import compiled, eager, program

from synth_core.records import Stage
from synth_core.validation.checks import CHECKS

TWO = "self.a, self.b = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6, 6))"


def when_compiled(there: str, here: str = "x @ self.a") -> str:
    """A program that computes something else where it is compiled; no C++ is needed for either."""
    return program(f"if torch.compiler.is_compiling():\n    return {there}\nreturn {here}", TWO)


BREAKS = {
    "shapes": program("return x[:, :0] * 2"),
    "finite": program("return x / 0"),
    "deterministic": program("self.calls += 1\nreturn x * self.calls", "self.calls = 0"),
    "magnitude": program("return x * 1e9"),
    "not_zero": program("return x * 0"),
    "varies": program("return x * 0 + 1"),
    "inputs_matter": program("return torch.ones_like(x) @ self.a", TWO),
    "weights_matter": program("return (x @ self.a) * 0 + x", TWO),
    "operators_matter": program("return torch.relu(torch.relu(x))"),
    "reference": program("return (x + 1e6) - 1e6"),
    "operators": program("return x @ self.a", TWO),
    "contract": program("return {'x': x * 2}"),
    "full_graph": program("torch._dynamo.graph_break()\nreturn x @ self.a", TWO),
    "compiled_shapes": when_compiled("x[:2] @ self.a"),
    "compiled_finite": when_compiled("(x @ self.a) / 0", "x @ self.a"),
    "agreement": when_compiled("x @ self.b"),
    "compiled_reference": when_compiled("x @ self.b"),
}
MORE: dict[str, dict[str, Any]] = {"operators": {"requested": ["Conv2d"]}}


@pytest.mark.parametrize("name", BREAKS)
def test_a_check_rejects_and_can_be_switched_off(name: str) -> None:
    (check,) = [check for check in CHECKS if check.name == name]
    others = [c.name for c in CHECKS if c.skippable and c.stage is check.stage and c.name != name]
    judge = eager if check.stage is Stage.VALIDATE_EAGER else compiled
    alone = judge(BREAKS[name], skip=others, **MORE.get(name, {}))
    assert (alone["passed"], alone.get("check")) == (False, name), alone
    assert check.category is None or alone["category"] == check.category
    off = judge(BREAKS[name], skip=[*others, name], **MORE.get(name, {}))
    assert off["passed"], off
    assert set(off["skipped"]) == {*others, name}


def test_every_check_that_can_be_switched_off_is_tried() -> None:
    """`static` is the engine's, and switched off in most of the tests of the sandbox."""
    assert {check.name for check in CHECKS if check.skippable} == {*BREAKS, "static"}
