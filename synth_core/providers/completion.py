"""Turns a candidate into a question to the model, and a reply into the candidate's completion."""

from __future__ import annotations

from synth_core import form
from synth_core.providers.answers import answer_key
from synth_core.providers.call import Reply, Request
from synth_core.providers.lane import Lane
from synth_core.records import (
    Candidate,
    Category,
    Completion,
    Outcome,
    Stage,
    Telemetry,
    Verdict,
    operator_signature,
)
from synth_core.settings import ProviderSettings

_CATEGORIES = {Outcome.BLOCKED: Category.REFUSAL, Outcome.TRUNCATED: Category.TRUNCATED}


def question(candidate: Candidate, lane: Lane, options: ProviderSettings) -> tuple[Request, str]:
    """The question for a candidate, and the key of its answer in the store (empty if it is not stored)."""
    specification, prompt = candidate.specification, candidate.prompt
    assert prompt is not None
    schema = form.answer_schema(specification.operators) if prompt.template == form.TEMPLATE else None
    key = ""
    if not lane.provider.writes_here:
        key = answer_key(
            operators=operator_signature(specification.operators),
            prompt=prompt.digest,
            provider=lane.provider.name,
            server=options.base_url,
            api=options.api,
            model=lane.model,
            temperature=specification.temperature,
            schema=schema,
            sample=specification.sample,
            attempt=candidate.attempt,
        )
    request = Request(
        system=prompt.system,
        text=prompt.text,
        operators=specification.operators,
        model=lane.model,
        temperature=specification.temperature,
        max_tokens=options.max_tokens,
        # Derived from the key, so that equal questions use equal seeds.
        seed=int(key[:8], 16) >> 1 if key else specification.seed,
        schema=schema,
    )
    return request, key


def completed(candidate: Candidate, request: Request, reply: Reply, telemetry: Telemetry) -> Candidate:
    completion = Completion(
        outcome=reply.outcome,
        text=reply.text,
        requested_model=request.model,
        serving_model=reply.serving_model,
        finish_reason=reply.finish_reason,
        parameters={
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
        },
        error=reply.error,
        sizes=reply.sizes,
    )
    return candidate.judged(_verdict(reply), completion=completion, telemetry=telemetry)


def _verdict(reply: Reply) -> Verdict:
    """A truncated answer passes if it has text: extraction decides whether its program is complete."""
    if reply.outcome is Outcome.OK or (reply.outcome is Outcome.TRUNCATED and reply.text):
        return Verdict.ok(Stage.LLM)
    category = _CATEGORIES.get(reply.outcome, Category.PROVIDER_ERROR)
    detail = reply.error or "the answer reached max_tokens before it had any text"
    return Verdict.fail(Stage.LLM, category, f"{reply.outcome}: {detail}", check=reply.outcome.value)
