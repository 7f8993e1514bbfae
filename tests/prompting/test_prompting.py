"""Every template renders for every provider; the user's own works; mistakes are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from synth_core.errors import UsageError
from synth_core.prompting import known_templates, render, render_prompts
from synth_core.records import Candidate, Specification


def _specification(prompt: str, provider: str = "openai") -> Specification:
    return Specification(
        operators=("Conv2d", "ReLU", "MaxPool2d"),
        strategy="s",
        seed=7,
        provider=provider,
        prompt=prompt,
        temperature=0.5,
    )


def test_at_least_three_templates() -> None:
    assert {"ordered", "free", "plan", "layers"} <= set(known_templates())


@pytest.mark.parametrize("template", ["ordered", "free", "plan"])
def test_a_template_asks_for_the_operators_and_states_the_contract(template: str) -> None:
    prompt = render(_specification(template))
    assert prompt.system
    for wanted in (
        "Conv2d",
        "MaxPool2d",
        "SynthModel_Conv2d_ReLU_MaxPool2d",
        "get_init_inputs",
        "Final pattern:",
    ):
        assert wanted in prompt.text
    assert "{{" not in prompt.text
    assert "{%" not in prompt.text


@pytest.mark.parametrize("template", ["ordered", "free", "plan", "layers"])
def test_a_provider_may_have_its_own_variant(template: str) -> None:
    prompt = render(_specification(template, provider="constructive"))
    assert "Conv2d, ReLU, MaxPool2d (seed 7)" in prompt.text
    assert "get_init_inputs" not in prompt.text


def test_equal_prompts_have_equal_digests() -> None:
    one, two = (render(_specification("ordered")) for _ in range(2))
    assert one == two
    assert one.digest != render(_specification("free")).digest


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    own = tmp_path / "mine.txt"
    own.write_text('Write {{ operators | length }} of them.\n{% include "_contract.j2" %}', encoding="utf-8")
    prompt = render(_specification(str(own)))
    assert prompt.text.startswith("Write 3 of them.\nThe file holds")
    assert prompt.system == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{{ operatorz }}", "'operatorz' is undefined"),
        ("{% if %}", "line 1"),
        ('{% include "nothing.j2" %}', "nothing.j2"),
    ],
)
def test_a_mistake_in_a_template_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    own = tmp_path / "mine.j2"
    own.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        render(_specification(str(own)))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown prompt template 'orderd'; known: .*ordered, plan"):
        render(_specification("orderd"))


def test_a_candidate_that_has_a_prompt_keeps_it() -> None:
    prompt = render(_specification("plan"))
    candidate = Candidate(index=0, specification=_specification("ordered"), prompt=prompt)
    assert render_prompts([candidate])[0].prompt == prompt
