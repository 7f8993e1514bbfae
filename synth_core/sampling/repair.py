"""Repair: a failed program goes back to the LLM with its code and the reason of the failure.

Two kinds of failure are asked again without repair: those without code (a refusal, a truncation, an error of
the provider), and forms (`small-model`), because no model wrote their code.
"""

from __future__ import annotations

import atexit
from functools import cache

from synth_core import form
from synth_core.errors import SynthError
from synth_core.extraction import code_in
from synth_core.prompting import render
from synth_core.providers.constructive import Synthesizer
from synth_core.providers.table import find_provider
from synth_core.records import Candidate, Category

TEMPLATE = "repair"

_NO_CODE = frozenset({Category.REFUSAL, Category.TRUNCATED, Category.NO_CODE, Category.PROVIDER_ERROR})
_SHAPES = frozenset({Category.SHAPE_ERROR})
_LONGEST_CODE, _LONGEST_DETAIL = 20_000, 4_000  # characters; more would not help the model


def with_feedback(fresh: Candidate, failed: Candidate) -> Candidate:
    """Give `fresh`, a further attempt after `failed`, a prompt that asks to repair the failed code.

    Returns `fresh` unchanged if there is no code to repair, or if no LLM wrote it.
    """
    failure = failed.failure
    assert failure is not None
    if failure.category in _NO_CODE or find_provider(fresh.specification.provider).writes_here:
        return fresh
    if fresh.specification.prompt == form.TEMPLATE:
        return fresh  # we wrote the code from the form, so the model should fill in the form again
    code = (
        failed.program.source
        if failed.program
        else code_in(failed.completion.text if failed.completion else "")
    )
    if not code or len(code) > _LONGEST_CODE:
        return fresh
    prompt = render(
        fresh.specification.model_copy(update={"prompt": TEMPLATE}),
        code=code.rstrip(),
        category=failure.category,
        stage=failure.stage,
        check=failure.check,
        detail=_trim(failure.detail),
        plan=_shape_plan(fresh) if failure.category in _SHAPES else "",
    )
    return fresh.model_copy(update={"prompt": prompt})


def _trim(detail: str) -> str:
    """Keep the end of a long detail: the end of a traceback is the most useful part."""
    return detail if len(detail) <= _LONGEST_DETAIL else "…" + detail[-_LONGEST_DETAIL:]


def _shape_plan(candidate: Candidate) -> str:
    """The plan, with shapes, of a program that the synthesizer writes for the same operators, or empty."""
    try:
        written = _synthesizer().write(candidate.specification.operators, candidate.specification.seed)
    except SynthError:
        return ""
    return "" if isinstance(written, str) else written.plan


@cache
def _synthesizer() -> Synthesizer:
    synthesizer = Synthesizer(1)
    atexit.register(synthesizer.close)
    return synthesizer
