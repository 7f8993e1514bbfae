"""`synth preview`: a few candidates for real, and what the whole run would come to by them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter

from rich.console import Console

from flows.by_hand import first_candidates, steps
from flows.preflight import check_settings
from synth_core.providers.preflight import Estimate, estimate
from synth_core.reporting.terminal import duration
from synth_core.settings import Settings


def preview(settings: Settings, count: int, *, as_json: bool) -> Estimate:
    """Try `count` candidates of the run and print what all of it would take. Writes nothing."""
    check_settings(settings)
    settings = settings.resolved()
    candidates = first_candidates(settings, count)
    with steps(settings) as stages:
        began = time.monotonic()
        for step in stages:
            candidates = step(candidates)
        found = estimate(candidates, settings, time.monotonic() - began)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return found
    console = Console(highlight=False)
    failed = Counter(candidate.failure.category for candidate in candidates if candidate.failure)
    accepted = sum(candidate.alive for candidate in candidates)
    fell = ", ".join(f"{category} {number}" for category, number in failed.most_common())
    console.print(f"tried      {count}: {accepted} would be accepted" + (f"; {fell}" if fell else ""))
    low, likely, high = found.accepted
    console.print(f"of {found.attempts}: about {likely} accepted (95%: {low} to {high}), before the filter")
    console.print(f"time       about {duration(found.seconds)} with {settings.num_worker} workers")
    if found.calls:
        cost = "price not known" if found.cost_usd is None else f"about ${found.cost_usd:.2f}"
        console.print(f"calls      about {found.calls}, {found.tokens} tokens, {cost}")
    return found
