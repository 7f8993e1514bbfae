"""`synth preview`: try a few candidates, and estimate the whole run from them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter

from rich.console import Console

from flows.cli.preflight import check_plan
from flows.cli.without_prefect import Step, first_candidates, steps
from flows.pipeline.plan import plan_new
from synth_core.records import Candidate
from synth_core.reporting.estimate import Estimate, estimate
from synth_core.reporting.terminal import duration
from synth_core.settings import Settings

_JUDGING = 2  # the last two steps validate, eager and compiled


def preview(settings: Settings, count: int, *, as_json: bool) -> Estimate:
    """Try `count` candidates and print an estimate of the whole run. Writes no program and no record."""
    plan = plan_new(settings)
    check_plan(plan)
    candidates = first_candidates(plan, count)
    with steps(plan) as stages:
        # The first candidate pays for the start of everything, so the others tell the pace, if there are any.
        candidates, seconds = _through(stages, candidates[:1], candidates[1:])
    per_candidate = [taken / max(count - 1, 1) for taken in seconds]
    judging_s = sum(per_candidate[-_JUDGING:])
    writing_s = sum(per_candidate) - judging_s
    found = estimate(candidates, plan.settings, writing_s=writing_s, judging_s=judging_s)
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
        f"run        {found.attempts} attempts{further}: about {likely} accepted (95%: {low} to {high}),"
        " before the filter"
    )
    console.print(f"time       about {duration(found.seconds)} with {plan.settings.num_worker} workers")
    if settings.provider.batch:
        console.print("           plus up to a day for each round of the provider's batch jobs")
    if found.calls:
        cost = "price unknown" if found.cost_usd is None else f"about ${found.cost_usd:.2f}"
        console.print(f"calls      about {found.calls}, {found.tokens} tokens, {cost}")
    return found


def _through(
    stages: list[Step], first: list[Candidate], others: list[Candidate]
) -> tuple[list[Candidate], list[float]]:
    """All candidates after their last stage, and the seconds of each stage.

    The seconds are those of `others`, or of `first` if there are no others.
    """
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
