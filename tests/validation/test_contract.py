"""The downstream contract: for every rule a program that keeps it and one that breaks it."""

from __future__ import annotations

import pytest
from probing import NAME, eager, program

from synth_core.errors import UsageError
from synth_core.program import syntax
from synth_core.program.renaming import rename_class
from synth_core.validation import checks, contract

PLAIN = program("return self.linear(x)", "self.linear = nn.Linear(6, 3)")

BROKEN = {
    "class_named_as_file": PLAIN.replace(NAME, "Model"),
    "bare_exec": PLAIN + "\nif __name__ == '__main__':\n    pass\n",
    "no_introspection": program(
        "return self.linear(x)",
        "self.linear = nn.Linear(6, 3)",
        inputs="torch.randn(4 + get_init_inputs.__code__.co_argcount, 6)",
    ),
    "plain_forward": program("return self.linear(x)", "self.linear = nn.Linear(6, 3)", args="*x").replace(
        "self.linear(x)", "self.linear(x[0])"
    ),
    "one_return": program(
        "if x.dim() > 1:\n    return self.linear(x)\nreturn self.linear(x)", "self.linear = nn.Linear(6, 3)"
    ),
    "no_lambda_returned": program(
        "return self.linear(x)", "self.linear = nn.Linear(6, 3)", inputs="(lambda: torch.randn(4, 6))()"
    ),
    "no_reserved_names": program("grid = self.linear(x)\nreturn grid", "self.linear = nn.Linear(6, 3)"),
    "no_chained_assignment": program("a = b = self.linear(x)\nreturn a + b", "self.linear = nn.Linear(6, 3)"),
    "no_new_syntax": program(
        "match x.dim():\n    case _:\n        y = self.linear(x)\nreturn y", "self.linear = nn.Linear(6, 3)"
    ),
    "no_globals_in_forward": program(
        "return self.linear(x) * SCALE", "self.linear = nn.Linear(6, 3)", top="SCALE = 2.0"
    ),
    "init_inputs_are_a_pair": program(
        "return self.linear(x)", "self.linear = nn.Linear(n, 3)", params=", n", init_inputs="[6]"
    ),
    "inputs_are_flat": program(
        "return self.linear(x) * n",
        "self.linear = nn.Linear(6, 3)",
        args="x, n",
        inputs="torch.randn(4, 6), 2",
    ),
    "tensors_returned": program(
        "pair = (self.linear(x), x * 2)\nreturn pair", "self.linear = nn.Linear(6, 3)"
    ),
    "parameters_used": program(
        "return self.linear(x)", "self.linear = nn.Linear(6, 3)\nself.spare = nn.Parameter(torch.randn(3))"
    ),
    "inputs_used": program(
        "return self.linear(x)",
        "self.linear = nn.Linear(6, 3)",
        args="x, y",
        inputs="torch.randn(4, 6), torch.randint(0, 5, (4,))",
    ),
    "no_side_effects": program("self.last = 1\nreturn self.linear(x)", "self.linear = nn.Linear(6, 3)"),
    "no_input_returned": program("return self.linear(x), x", "self.linear = nn.Linear(6, 3)"),
    "no_view_of_input": program("return self.linear(x), x.view(-1)", "self.linear = nn.Linear(6, 3)"),
    "no_buffers": program(
        "return self.norm(self.linear(x))", "self.linear = nn.Linear(6, 3)\nself.norm = nn.BatchNorm1d(3)"
    ),
    "no_numeric_paths": program("return self.layers(x)", "self.layers = nn.Sequential(nn.Linear(6, 3))"),
    "input_shapes_apart": program("return self.linear(x)", "self.linear = nn.Linear(6, 4)"),
    "parameters_in_order": program(
        "return self.second(torch.tanh(self.first(x)))",
        "self.second = nn.Linear(6, 6)\nself.first = nn.Linear(6, 6)",
    ),
    "no_randomness": program(
        "return self.linear(x) + torch.randn(4, 3)", "self.linear = nn.Linear(6, 3)"
    ),
}  # fmt: skip


def test_every_rule_has_a_program_that_breaks_it() -> None:
    assert set(BROKEN) == {rule.name for rule in contract.RULES} - {contract.ONE_GRAPH.name}


def test_an_ordinary_program_keeps_every_rule() -> None:
    verdict = eager(PLAIN)
    assert verdict["passed"], verdict
    assert all(verdict["contract"].values())
    assert verdict["warnings"] == ()


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_reported(rule: str) -> None:
    verdict = eager(BROKEN[rule], skip=["operators_matter", "deterministic"])
    assert verdict["contract"][rule] is False, verdict


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_rejects_only_where_asked_to(rule: str) -> None:
    """Every rule can be moved between rejecting and warning."""
    skip = [check.name for check in checks.CHECKS if check.skippable and check.name != "contract"]
    rejected = eager(BROKEN[rule], skip=skip, reject_rules=[rule])
    assert (rejected["passed"], rejected["check"]) == (False, "contract")
    assert rule in rejected["detail"]
    warned = eager(BROKEN[rule], skip=skip, reject_rules=[])
    assert warned["passed"]
    assert rule in warned["warnings"]


def test_default_rules() -> None:
    assert contract.resolve_rules() == set(contract.DEFAULT_REJECT_RULES)
    assert {"one_return", "parameters_used", "one_graph"} <= set(contract.DEFAULT_REJECT_RULES)
    assert not {"no_buffers", "no_numeric_paths", "parameters_in_order"} & set(contract.DEFAULT_REJECT_RULES)


def test_naming_a_rule_moves_that_one_alone() -> None:
    default = contract.resolve_rules()
    assert contract.resolve_rules(["no_buffers"]) == default | {"no_buffers"}
    assert contract.resolve_rules(["no_buffers"], ["one_return"]) == default - {"one_return"} | {"no_buffers"}
    for reject, warn in ((["no_buffers"], ["no_buffers"]), ([], ["one_graph"])):
        with pytest.raises(UsageError):
            contract.resolve_rules(reject, warn)


def test_unknown_names_are_the_users_mistake() -> None:
    with pytest.raises(UsageError, match="did you mean 'one_return'"):
        contract.resolve_rules(["one_returns"])
    with pytest.raises(UsageError, match="did you mean 'finite'"):
        checks.resolve_skips(["finit"])
    with pytest.raises(UsageError, match="cannot be switched off"):
        checks.resolve_skips(["runs"])


def test_of_several_classes_the_one_is_judged_that_is_renamed() -> None:
    """They get this far with the static gate switched off."""
    helper = "class Helper:\n    pass\n\n\n"
    text = rename_class(PLAIN.replace("class ", f"{helper}class ", 1), "SynthModel_Linear")
    tree = syntax.parse(text)
    for name, holds in (("SynthModel_Linear", True), ("Helper", False)):
        rules = contract.check_contract(contract.Source(tree, name))
        assert rules["class_named_as_file"] is holds
