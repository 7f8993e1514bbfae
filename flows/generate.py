"""What `generate`, `resume` and `report` do around a run: show it, sum it up, say how to go on."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from rich.console import Console

from flows.preflight import check_settings
from flows.progress import RunSummary
from flows.progress_view import progress_view
from flows.run import run_synth, run_to_resume
from synth_core.reporting import print_report, summarise, write_html
from synth_core.settings import BudgetSettings, Settings
from synth_core.store import latest_run, latest_unfinished_run, load_run


def generate(settings: Settings, *, as_json: bool) -> RunSummary:
    """Start a run and see it through."""
    check_settings(settings)
    return _see_through(settings, None, as_json=as_json)


def resume(output_dir: Path, run_id: str, budget: BudgetSettings, *, as_json: bool) -> RunSummary:
    """Go on with a run of this folder (`run_to_resume` says which without an id), within a larger budget if
    one is given."""
    run = run_to_resume(output_dir, run_id)
    settings = run.settings.model_copy(update={"budget": budget})
    check_settings(settings)
    return _see_through(settings, run.run_id, as_json=as_json)


def report(output_dir: Path, run_id: str, *, as_json: bool) -> None:
    """Print a finished or running run's report and write its page anew."""
    run = load_run(output_dir, run_id) if run_id else latest_run(output_dir)
    summary = summarise(run.output_dir, run.run_id)
    page = write_html(summary, run.folder / "report.html")
    if as_json:
        print(summary.model_dump_json())
        return
    console = Console()
    print_report(summary, console)
    console.print(f"page       {page}", soft_wrap=True)


def _see_through(settings: Settings, resumed: str | None, *, as_json: bool) -> RunSummary:
    try:
        with progress_view(settings.num_accepted) as observe:
            summary = run_synth(settings, observer=observe, resume=resumed)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(settings)) from None
    if as_json:
        fields = summary.model_dump(exclude={"short", "budget_spent"})
        fields["yield"] = summary.accepted / summary.attempted if summary.attempted else 0.0
        print(json.dumps(fields))
    else:
        _sum_up(summary, settings)
    if summary.budget_spent:
        command = _resume_command(summary.output_dir, summary.run_id)
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


def _how_to_go_on(settings: Settings) -> str:
    run = latest_unfinished_run(settings.output_dir)
    if run is None:
        return "interrupted before the run began"
    command = _resume_command(settings.output_dir, run.run_id)
    return f"interrupted; everything finished is kept. Go on with:\n{command}"


def _resume_command(output_dir: str, run_id: str) -> str:
    return shlex.join(["synth", "resume", "--output-dir", output_dir, "--run", run_id])
