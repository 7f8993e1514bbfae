"""Estimates the cost, time and yield of a whole run from a few candidates that were tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from synth_core.providers.pricing import BATCH_SHARE
from synth_core.providers.table import find_provider
from synth_core.records import Candidate, Stage, Telemetry
from synth_core.reporting.proportion import wilson
from synth_core.sampling.sample import FINAL
from synth_core.settings import Settings


@dataclass(frozen=True)
class Estimate:
    """The expected size of a run.

    attempts: first attempts. further: retries after failures.
    accepted: programs (low, likely, high); low and high bound a 95% Wilson interval.
    cost_usd: None if the model's price is not known.
    seconds: wall time of the run.
    """

    attempts: int
    further: int
    accepted: tuple[int, int, int]
    calls: int
    tokens: int
    cost_usd: float | None
    seconds: float


def estimate(
    tried: Sequence[Candidate], settings: Settings, *, writing_s: float, judging_s: float
) -> Estimate:
    """Scale a preview up to the whole run. It assumes that retries succeed as often as first attempts.

    tried: the preview's candidates after their last stage, all first attempts. Tokens and cost are estimated
        from paid answers only, not from cached ones. The preview never uses batch mode; if the settings ask
        for it, the estimate applies its discount.
    writing_s, judging_s: seconds per candidate on this machine, for writing and for judging, once warm.
    """
    wanted = settings.num_total_samples
    alive = sum(candidate.alive for candidate in tried)
    attempts = wanted * _attempts_each(tried, settings)
    low, high = (share * attempts for share in wilson(alive, len(tried)))
    paid = [candidate.telemetry for candidate in tried if candidate.telemetry.calls]
    per_paid = attempts / len(paid) if paid else 0.0
    usages = [telemetry.usage for telemetry in paid]
    tokens = sum(usage.input_tokens + usage.output_tokens + usage.thinking_tokens for usage in usages)
    share = BATCH_SHARE if settings.provider.batch else 1.0
    priced = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    return Estimate(
        attempts=wanted,
        further=round(attempts - wanted),
        accepted=(math.floor(low), round(alive / len(tried) * attempts), min(math.ceil(high), wanted)),
        calls=round(sum(telemetry.calls for telemetry in paid) * per_paid),
        tokens=round(tokens * per_paid),
        cost_usd=sum(priced) * per_paid * share if len(priced) == len(paid) else None,
        seconds=attempts * _pace(paid, settings, writing_s, judging_s),
    )


def _attempts_each(tried: Sequence[Candidate], settings: Settings) -> float:
    """Mean attempts per candidate: each failure is followed by one more attempt, unless it is final."""
    retries = 0 if settings.on_failure == "drop" else settings.max_retries
    failed = sum(bool(c.failure and c.failure.category not in FINAL) for c in tried) / len(tried)
    return sum(failed**attempt for attempt in range(retries + 1))


def _pace(paid: Sequence[Telemetry], settings: Settings, writing_s: float, judging_s: float) -> float:
    """Seconds per attempt in a long run.

    Programs written here use the same cores as judging, so the times add up. Calls to a server run at the
    same time as judging, with limited concurrency and rate, so the slowest of these decides.
    """
    if find_provider(settings.model_name).writes_here:
        return writing_s + judging_s
    provider = settings.provider
    call_s = sum(telemetry.seconds.get(Stage.LLM, 0.0) for telemetry in paid) / max(len(paid), 1)
    at_once = min(provider.concurrency, settings.num_total_samples)
    return max(judging_s, call_s / at_once, 60 / provider.rpm if provider.rpm else 0.0)
