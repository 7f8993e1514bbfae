"""Every check by its name: alone it rejects a program that breaks it, switched off it lets that one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from probing import DRAW_SEED, compiled, eager, program, request, streams_of

from synth_core.errors import UsageError
from synth_core.records import Stage
from synth_core.validation.checks import CHECKS, Check, resolve_skips
from synth_core.validation.judge.proofs import Run
from synth_core.validation.prover import eager as eager_stage
from synth_core.validation.prover.case import Case, read
from synth_core.validation.prover.decide import decide

TWO = "self.a, self.b = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6, 6))"
PLAIN = program("return x @ self.a", TWO)
BREAK = program("torch._dynamo.graph_break()\nreturn x @ self.a", TWO)

BREAKS = {
    "shapes": program("return x[:, :0] * 2"),
    "finite": program("return x / 0"),
    "deterministic": program("self.calls += 1\nreturn x * self.calls", "self.calls = 0"),
    "faithful": program("if torch.compiler.is_compiling():\n    return x @ self.b\nreturn x @ self.a", TWO),
    "magnitude": program("return x * 1e9"),
    "not_zero": program("return x * 0"),
    "varies": program("return x * 0 + 1"),
    "inputs_matter": program("return torch.ones_like(x) @ self.a", TWO),
    "weights_matter": program("return (x @ self.a) * 0 + x", TWO),
    "operators_matter": program("return torch.relu(torch.relu(x))"),
    "operators": PLAIN,
    "contract": program("return {'x': x * 2}"),
    "reference": program("return (x + 1e6) - 1e6"),
}
MORE: dict[str, dict[str, Any]] = {"operators": {"requested": ["Conv2d"]}}

Change = Callable[[torch.Tensor], torch.Tensor]
MISCOMPILED: dict[str, Change] = {
    "compiled_shapes": lambda value: value[:2],
    "compiled_finite": lambda value: value / 0,
    "agreement": lambda value: value + 1,
    "compiled_reference": lambda value: value + 1,
}


def others_than(name: str) -> tuple[Check, list[str]]:
    """The check, and the names of all others that its stage asks and that can be switched off."""
    (check,) = [check for check in CHECKS if check.name == name]
    asked = [one for one in CHECKS if one.stage is check.stage or one.name == "faithful"]
    return check, [one.name for one in asked if one.skippable and one.name != name]


@pytest.mark.parametrize("name", BREAKS)
def test_a_check_rejects_and_can_be_switched_off(name: str) -> None:
    check, others = others_than(name)
    judge = eager if check.stage is Stage.VALIDATE_EAGER else compiled
    alone = judge(BREAKS[name], skip=others, **MORE.get(name, {}))
    assert (alone["passed"], alone.get("check")) == (False, name), alone
    assert alone["category"] == check.category
    off = judge(BREAKS[name], skip=[*others, name], **MORE.get(name, {}))
    assert off["passed"], off
    assert set(off["skipped"]) == {*others, name}


@pytest.mark.parametrize("name", MISCOMPILED)
def test_a_check_rejects_what_a_compiler_got_wrong(name: str) -> None:
    """No program brings that about: what it does where it is compiled is what its graph holds."""
    check, others = others_than(name)
    asked = request(PLAIN, skip=["deterministic"])
    streams = streams_of(asked)

    def measure(found: Case) -> Run:
        run = eager_stage.run(asked, found, frozenset())
        run.compiled = [MISCOMPILED[name](output) for output in run.outputs]
        run.reference = [output.double() for output in run.outputs]
        return run

    def judge(skip: Sequence[str]) -> dict[str, Any]:
        return decide(asked | {"skip": skip}, check.stage, lambda: read(streams, DRAW_SEED), measure)

    alone = judge(others)
    assert (alone["passed"], alone.get("check"), alone["category"]) == (False, name, check.category), alone
    assert judge([*others, name])["passed"]


def test_a_graph_break_is_never_let_pass() -> None:
    """Every later check needs the graph."""
    found = eager(BREAK, skip=[check.name for check in CHECKS])
    assert (found["check"], found["category"]) == ("full_graph", "GRAPH_BREAK"), found
    assert found["contract"]["one_graph"] is False
    with pytest.raises(UsageError, match="cannot be switched off"):
        resolve_skips(["full_graph"])


def test_every_check_that_can_be_switched_off_is_tried() -> None:
    """`static` is the engine's, and switched off in most of the tests of the sandbox."""
    assert {check.name for check in CHECKS if check.skippable} == {*BREAKS, *MISCOMPILED, "static"}
