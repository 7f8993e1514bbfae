"""Before money is spent: does the provider answer, and what would the whole run take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from synth_core.errors import SynthError
from synth_core.prompting import render_prompts
from synth_core.proportion import wilson
from synth_core.providers.dispatch import Dispatcher
from synth_core.providers.table import PROVIDERS, Provider, find_provider, key_of, require_key
from synth_core.records import Candidate, Outcome, Specification
from synth_core.settings import Settings

_PROBE_TOKENS = 16
_REACHED = frozenset({Outcome.OK, Outcome.TRUNCATED, Outcome.EMPTY, Outcome.BLOCKED})


@dataclass(frozen=True)
class Probe:
    """Whether one provider answered one tiny call; `detail` says what to mend where it did not."""

    provider: str
    ok: bool
    detail: str


def configured(settings: Settings) -> list[Provider]:
    """The providers worth a probe: the one the settings name, and every other that has a key."""
    named = find_provider(settings.model_name)
    return [named, *(row for row in PROVIDERS.values() if row is not named and key_of(row) is not None)]


def probe(settings: Settings, provider: Provider, *, key: SecretStr | None = None) -> Probe:
    """Ask the provider one tiny question, with no retry; never raises for what the provider does."""
    options: dict[str, Any] = {
        "retries": 0,
        "max_tokens": _PROBE_TOKENS,
        "timeout": min(30.0, settings.provider.timeout),
    }
    if provider.name != settings.model_name:  # model and address belong to the provider that was named
        options |= {"base_url": "", "model_id": "", "api": "chat"}
    if provider.writes_here:
        options["timeout"] = settings.provider.timeout
    settings = settings.model_copy(
        update={"model_name": provider.name, "provider": settings.provider.model_copy(update=options)}
    )
    try:
        require_key(settings, key)
        with Dispatcher(settings, key=key, use_cache=False) as dispatcher:
            (done,) = dispatcher.complete(render_prompts([_tiny(provider)]))
    except SynthError as error:
        return Probe(provider.name, False, str(error))
    completion = done.completion
    assert completion is not None
    seconds = done.telemetry.seconds["llm"]
    if completion.outcome not in _REACHED:
        return Probe(provider.name, False, f"{completion.outcome}: {completion.error}")
    cost = done.telemetry.usage.cost_usd
    priced = "no price known" if cost is None else f"${cost:.6f}"
    model = completion.serving_model or completion.requested_model
    return Probe(provider.name, True, f"{model} answered in {seconds:.1f} s ({priced})")


def _tiny(provider: Provider) -> Candidate:
    specification = Specification(
        operators=("ReLU",), strategy="probe", seed=0, provider=provider.name, prompt="plan", temperature=1.0
    )
    return Candidate(index=0, specification=specification)


@dataclass(frozen=True)
class Estimate:
    """What a run of `attempts` first attempts would take, by the few that were tried.

    accepted: (low, likely, high) programs; low and high bound a 95% interval (Wilson's).
    cost_usd: None where the model's price is not known.
    """

    attempts: int
    accepted: tuple[int, int, int]
    calls: int
    tokens: int
    cost_usd: float | None
    seconds: float


def estimate(tried: Sequence[Candidate], settings: Settings, wall_s: float) -> Estimate:
    """Scale a preview up to the whole run; `wall_s` is how long the preview took.

    tried: the preview's candidates, all of them first attempts, after their last stage. What the cache
        answered says nothing about money, so only paid answers count for that.
    """
    count, wanted = len(tried), settings.num_total_samples
    accepted = sum(candidate.alive for candidate in tried)
    low, high = wilson(accepted, count)
    scale = wanted / count
    paid = [candidate.telemetry for candidate in tried if candidate.telemetry.calls]
    per_paid = wanted / len(paid) if paid else 0.0
    usages = [telemetry.usage for telemetry in paid]
    tokens = sum(usage.input_tokens + usage.output_tokens + usage.thinking_tokens for usage in usages)
    priced = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    return Estimate(
        attempts=wanted,
        accepted=(math.floor(low * wanted), round(accepted * scale), math.ceil(high * wanted)),
        calls=round(sum(telemetry.calls for telemetry in paid) * per_paid),
        tokens=round(tokens * per_paid),
        cost_usd=sum(priced) * per_paid if len(priced) == len(paid) else None,
        seconds=wall_s * scale,
    )
