"""`synth generate` and `synth resume`: start a run, show its progress and print its summary."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console

from flows.cli.preflight import check_plan
from flows.cli.progress_view import progress_view
from flows.cli.report import resume_command
from flows.pipeline.plan import Plan, plan_new, plan_resume
from flows.pipeline.progress import RunSummary
from flows.run import run_synth
from synth_core.reporting import print_report, summarise
from synth_core.settings import Settings
from synth_core.store import Run


def generate(settings: Settings, *, as_json: bool) -> RunSummary:
    """Start a new run and wait for its end."""
    return _carry_out(plan_new(settings), as_json=as_json)


def resume(given: Settings, run_id: str, *, as_json: bool) -> RunSummary:
    """Resume a run of the folder and wait for its end. `plan_resume` says which run an empty id means.

    Of `given`, only the folder and the budget count. A limit that is given replaces the run's own limit.
    """
    with plan_resume(given.output_dir, run_id, given.budget) as plan:
        return _carry_out(plan, as_json=as_json)


def _carry_out(plan: Plan, *, as_json: bool) -> RunSummary:
    check_plan(plan)
    runs = [plan.run] if plan.resumed else []
    target = plan.settings.num_accepted
    try:
        with progress_view(target) as observe:
            summary = run_synth(plan, observer=observe, started=runs.append)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_resume(runs)) from None
    if as_json:
        fields = summary.model_dump(exclude={"short", "budget_spent"})
        fields["yield"] = summary.accepted / summary.attempted if summary.attempted else 0.0
        print(json.dumps(fields))
    else:
        _print_summary(summary, target)
    if summary.budget_spent:
        command = resume_command(summary.output_dir, summary.run_id)
        text = (
            f"the run ended early: {summary.budget_spent}. To resume it, add a larger budget to this command:"
        )
        print(f"synth: {text}\n{command}", file=sys.stderr)
    return summary


def _print_summary(summary: RunSummary, target: int) -> None:
    console = Console(highlight=False)
    print_report(summarise(summary.output_dir, summary.run_id), console)
    console.print(f"programs   {summary.output_dir}", soft_wrap=True)
    console.print(f"report     {summary.report}", soft_wrap=True)
    if summary.short and not summary.budget_spent:
        console.print(
            f"short      {summary.accepted} of {target} accepted; "
            "raise --num-total-samples or choose a strategy with fewer operators"
        )


def _how_to_resume(runs: Sequence[Run]) -> str:
    if not runs:
        return "interrupted before the run began"
    command = resume_command(str(runs[-1].output_dir), runs[-1].run_id)
    return f"interrupted; all finished work is kept. Resume the run with:\n{command}"
