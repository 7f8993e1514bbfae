"""`synth generate` and `synth resume`: start a run, show its progress, sum it up."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console

from flows.cli.preflight import check_settings
from flows.cli.progress_view import progress_view
from flows.cli.report import resume_command
from flows.pipeline.progress import RunSummary
from flows.run import run_synth, run_to_resume
from synth_core.reporting import print_report, summarise
from synth_core.settings import Settings
from synth_core.store import Run


def generate(settings: Settings, *, as_json: bool) -> RunSummary:
    """Start a run and see it through."""
    check_settings(settings)
    return _see_through(settings, None, as_json=as_json)


def resume(given: Settings, run_id: str, *, as_json: bool) -> RunSummary:
    """Go on with a run of the folder (`run_to_resume` says which without an id), within a larger budget if
    one is given."""
    run = run_to_resume(given.output_dir, run_id)
    settings = run.settings.model_copy(update={"budget": given.budget})
    check_settings(settings, run)
    return _see_through(settings, run, as_json=as_json)


def _see_through(settings: Settings, resumed: Run | None, *, as_json: bool) -> RunSummary:
    runs = [resumed] if resumed else []
    try:
        with progress_view(settings.num_accepted) as observe:
            resume = resumed.run_id if resumed else None
            summary = run_synth(settings, observer=observe, started=runs.append, resume=resume)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(runs)) from None
    if as_json:
        fields = summary.model_dump(exclude={"short", "budget_spent"})
        fields["yield"] = summary.accepted / summary.attempted if summary.attempted else 0.0
        print(json.dumps(fields))
    else:
        _sum_up(summary, settings)
    if summary.budget_spent:
        command = resume_command(summary.output_dir, summary.run_id)
        text = f"the run ended early: {summary.budget_spent}. With a larger one (--budget-usd …) it goes on:"
        print(f"synth: {text}\n{command}", file=sys.stderr)
    return summary


def _sum_up(summary: RunSummary, settings: Settings) -> None:
    console = Console(highlight=False)
    print_report(summarise(summary.output_dir, summary.run_id), console)
    console.print(f"programs   {summary.output_dir}", soft_wrap=True)
    console.print(f"report     {summary.report}", soft_wrap=True)
    if summary.short and not summary.budget_spent:
        console.print(
            f"short      {summary.accepted} of {settings.num_accepted} accepted; "
            "raise --num-total-samples or choose a strategy with fewer operators"
        )


def _how_to_go_on(runs: Sequence[Run]) -> str:
    if not runs:
        return "interrupted before the run began"
    command = resume_command(str(runs[-1].output_dir), runs[-1].run_id)
    return f"interrupted; everything finished is kept. Go on with:\n{command}"
