"""Checks that a provider answers, before a run spends money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from synth_core.errors import SynthError
from synth_core.prompting import render_prompts
from synth_core.providers.call import ANSWERED
from synth_core.providers.dispatch import Dispatcher
from synth_core.providers.provider import Provider
from synth_core.providers.table import PROVIDERS, find_provider, key_of, require_key
from synth_core.records import Candidate, Specification
from synth_core.settings import Settings

_PROBE_TOKENS = 16


@dataclass(frozen=True)
class Probe:
    """The result of one tiny call to one provider.

    detail: on success the model, the time and the price; else what to fix.
    """

    provider: str
    ok: bool
    detail: str


def configured(settings: Settings) -> list[Provider]:
    """The providers worth a probe: the one that the settings name, and every other one with a key."""
    named = find_provider(settings.model_name)
    return [named, *(row for row in PROVIDERS.values() if row is not named and key_of(row) is not None)]


def probe(settings: Settings, provider: Provider, *, key: SecretStr | None = None) -> Probe:
    """Ask the provider one tiny question, without retries. A failure becomes a `Probe` with `ok=False`."""
    options: dict[str, Any] = {
        "retries": 0,
        "batch": False,
        "secret_block": "",  # `key` already holds the block's key
        "max_tokens": _PROBE_TOKENS,
        "timeout": min(30.0, settings.provider.timeout),
    }
    if provider.name != settings.model_name:  # model and address belong to the named provider
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
    if completion.outcome not in ANSWERED:
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
