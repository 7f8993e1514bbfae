"""`synth report`: print the result of a run, and write its HTML page again."""

from __future__ import annotations

import shlex
import sys

from rich.console import Console

from synth_core.errors import EnvironmentFault
from synth_core.reporting import print_report, summarise, write_report
from synth_core.store import RunState


def report(output_dir: str, run_id: str, *, as_json: bool) -> None:
    """Print the report of a run, finished or not, and write its page again.

    An empty run id means the newest run; `all` means all runs. If the folder is read-only, only the page is
    left out.
    """
    console = Console(highlight=False)
    try:
        summary, page = write_report(output_dir, run_id)
    except EnvironmentFault as fault:
        summary, page = summarise(output_dir, run_id or None), None
        print(f"synth: {fault}; the page was not written", file=sys.stderr)
    if as_json:
        print(summary.model_dump_json())
        return
    print_report(summary, console)
    if page:
        console.print(f"page       {page}", soft_wrap=True)
    if summary.run_id and summary.state != RunState.COMPLETED:
        command = resume_command(summary.output_dir, summary.run_id)
        console.print(f"unfinished ({summary.state}); resume it with: {command}", soft_wrap=True)


def resume_command(output_dir: str, run_id: str) -> str:
    """The command that resumes a run, quoted for a shell."""
    return shlex.join(["synth", "resume", "--output-dir", output_dir, "--run", run_id])
