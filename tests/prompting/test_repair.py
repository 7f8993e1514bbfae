"""A failed program goes back with its code and the reason; what has no code is asked again as before."""

from __future__ import annotations

import pytest

from synth_core.prompting import render_prompts
from synth_core.records import (
    Candidate,
    Category,
    Completion,
    Outcome,
    Program,
    Specification,
    Stage,
    Verdict,
)
from synth_core.sampling.sample import again
from synth_core.settings import Settings

_SETTINGS = Settings(seed=1, on_failure="repair", max_retries=1)
_SOURCE = "import torch\n\nclass M(torch.nn.Module):\n    pass\n"


def _failed(
    stage: Stage,
    category: Category,
    *,
    provider: str = "openai",
    parsed: bool = True,
    prompt: str = "ordered",
) -> Candidate:
    specification = Specification(
        operators=("Conv2d", "ReLU"),
        strategy="s",
        seed=3,
        provider=provider,
        prompt=prompt,
        temperature=0.5,
    )
    candidate = render_prompts([Candidate(index=7, specification=specification)])[0]
    completion = Completion(outcome=Outcome.OK, text=f"```python\n{_SOURCE}```", requested_model="m")
    program = Program.of("M", _SOURCE) if parsed else None
    verdict = Verdict.fail(stage, category, "line 3: mat1 and mat2 shapes cannot be multiplied", check="runs")
    return candidate.judged(verdict, completion=completion, program=program)


@pytest.mark.parametrize("parsed", [True, False])
def test_repair_prompt_holds_code_and_reason(parsed: bool) -> None:
    failed = _failed(Stage.VALIDATE_EAGER, Category.EXCEPTION, parsed=parsed)
    attempt = again(failed, _SETTINGS)
    assert attempt is not None
    assert (attempt.attempt, attempt.parent_id, attempt.id) == (1, "0000007.0", "0000007.1")
    (rendered,) = render_prompts([attempt])
    assert rendered.prompt is not None
    assert rendered.prompt.template == "repair"
    for part in ("class M(torch.nn.Module)", "EXCEPTION", "mat1 and mat2", "check runs", "Conv2d, ReLU"):
        assert part in rendered.prompt.text


@pytest.mark.parametrize("category", [Category.REFUSAL, Category.TRUNCATED, Category.PROVIDER_ERROR])
def test_without_code_the_question_is_asked_again(category: Category) -> None:
    attempt = again(_failed(Stage.LLM, category), _SETTINGS)
    assert attempt is not None
    assert attempt.prompt is None
    assert attempt.specification.prompt == "ordered"


def test_the_constructive_provider_is_not_asked_to_repair() -> None:
    attempt = again(_failed(Stage.VALIDATE_EAGER, Category.EXCEPTION, provider="constructive"), _SETTINGS)
    assert attempt is not None
    assert attempt.prompt is None


def test_a_form_is_filled_in_anew() -> None:
    """Its code is ours; a repair would ask a weak model for free code, without the schema that it needs."""
    failed = _failed(Stage.VALIDATE_EAGER, Category.EXCEPTION, prompt="layers")
    attempt = again(failed, _SETTINGS)
    assert attempt is not None
    (rendered,) = render_prompts([attempt])
    assert failed.prompt
    assert rendered.prompt
    assert rendered.prompt.template == "layers"
    assert rendered.specification.sample != failed.specification.sample  # another answer, not the cached one


def test_a_shape_error_comes_with_a_plan_that_fits() -> None:
    attempt = again(_failed(Stage.VALIDATE_EAGER, Category.SHAPE_ERROR), _SETTINGS)
    assert attempt is not None
    assert attempt.prompt is not None
    assert "whose shapes fit:" in attempt.prompt.text
    assert "->" in attempt.prompt.text.split("whose shapes fit:")[1]
