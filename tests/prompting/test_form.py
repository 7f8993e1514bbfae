"""The form that a weak model fills in: whatever it chooses within the schema is a program."""

from __future__ import annotations

import ast
import json
import random
from typing import Any

import pytest

from synth_core.form import LAYERS, BadAnswer, answer_form, answer_schema, write_program
from synth_core.operators.catalog import find
from synth_core.settings import Settings
from synth_core.strategies import effective_strategies
from synth_core.validation import gate

_OPERATORS = ("Conv2d", "GroupNorm", "ReLU", "ReLU")


def _choose(schema: dict[str, Any], rng: random.Random) -> Any:
    if "properties" in schema:
        return {name: _choose(part, rng) for name, part in schema["properties"].items()}
    return rng.choice(schema.get("enum", [True, False]))


@pytest.mark.parametrize("name", LAYERS)
def test_any_choice_within_the_schema_is_a_program(name: str) -> None:
    assert find(name).name == name
    rng = random.Random(name)
    for _ in range(5):
        source = write_program((name, "ReLU"), json.dumps(_choose(answer_schema((name, "ReLU")), rng)))
        ast.parse(source)
        assert gate.check_source(source) is None


def test_prose_around_the_object_is_passed_over() -> None:
    choice = json.dumps(_choose(answer_schema(_OPERATORS), random.Random(1)))
    assert write_program(_OPERATORS, choice) == write_program(_OPERATORS, f"Sure!\n```json\n{choice}\n```")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 7}, "channels is 7, not one of"),
        ({"step_1_Conv2d": None}, "step_1_Conv2d is missing"),
        ({"step_2_GroupNorm": {"groups": "4); import os"}}, "groups is"),
    ],
)
def test_what_is_outside_the_schema_is_no_program(change: dict[str, Any], message: str) -> None:
    choice = _choose(answer_schema(_OPERATORS), random.Random(1)) | change
    with pytest.raises(BadAnswer, match=message):
        write_program(_OPERATORS, json.dumps(choice))


@pytest.mark.parametrize("text", ["", "{", "[1]", "{" * 100_000])
def test_what_is_no_object_is_no_program(text: str) -> None:
    with pytest.raises(BadAnswer):
        write_program(_OPERATORS, text)


def test_the_strategy_draws_only_what_has_a_form() -> None:
    (strategy,) = effective_strategies(Settings(strategy="small-model"))
    assert set(strategy.operators) == set(LAYERS)
    assert strategy.prompt == "layers"


def test_the_form_offers_all_choices_in_an_order_of_its_own() -> None:
    one, two = answer_form(_OPERATORS, 1), answer_form(_OPERATORS, 2)
    assert one != two
    assert sorted(one) == sorted(two)
