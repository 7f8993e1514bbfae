"""`synth preview`: a few candidates for real, and what the whole run would come to by them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter

from rich.console import Console

from flows.cli.preflight import check_settings
from flows.cli.without_prefect import Step, first_candidates, steps
from synth_core.records import Candidate
from synth_core.reporting.estimate import Estimate, estimate
from synth_core.reporting.terminal import duration
from synth_core.settings import Settings

_JUDGING = 2  # the last two steps validate, eager and compiled


def preview(settings: Settings, count: int, *, as_json: bool) -> Estimate:
    """Try `count` candidates of the run and print what all of it would take. Writes nothing."""
    check_settings(settings)
    settings = settings.resolved()
    candidates = first_candidates(settings, count)
    with steps(settings) as stages:
        # The first one starts everything, so where there are others only theirs is the pace of a long run.
        candidates, seconds = _through(stages, candidates[:1], candidates[1:])
    per_candidate = [taken / max(count - 1, 1) for taken in seconds]
    judging_s = sum(per_candidate[-_JUDGING:])
    writing_s = sum(per_candidate) - judging_s
    found = estimate(candidates, settings, writing_s=writing_s, judging_s=judging_s)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return found
    console = Console(highlight=False)
    failed = Counter(candidate.failure.category for candidate in candidates if candidate.failure)
    accepted = sum(candidate.alive for candidate in candidates)
    fell = ", ".join(f"{category} {number}" for category, number in failed.most_common())
    console.print(f"tried      {count}: {accepted} would be accepted" + (f"; {fell}" if fell else ""))
    low, likely, high = found.accepted
    further = f" and {found.further} further attempts" if found.further else ""
    console.print(
        f"of {found.attempts}{further}: about {likely} accepted (95%: {low} to {high}), before the filter"
    )
    console.print(f"time       about {duration(found.seconds)} with {settings.num_worker} workers")
    if settings.provider.batch:
        console.print("           and up to a day for each round of the provider's batch jobs")
    if found.calls:
        cost = "price not known" if found.cost_usd is None else f"about ${found.cost_usd:.2f}"
        console.print(f"calls      about {found.calls}, {found.tokens} tokens, {cost}")
    return found


def _through(
    stages: list[Step], first: list[Candidate], others: list[Candidate]
) -> tuple[list[Candidate], list[float]]:
    """All of them after their last stage, and how long each stage took: for the others, if there are any."""
    seconds: list[float] = []
    done: list[Candidate] = []
    for some in filter(None, (first, others)):
        seconds = []
        for step in stages:
            began = time.monotonic()
            some = step(some)
            seconds.append(time.monotonic() - began)
        done += some
    return done, seconds
