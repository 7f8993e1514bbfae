"""`synth contamination scan`: find programs that resemble a benchmark problem."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from synth_core.errors import UsageError
from synth_core.filtering.contamination import reference_of, scan_files


def scan_folders(paths: Sequence[Path], compare: Sequence[Path], *, as_json: bool) -> int:
    """Print one line for each contaminated program, and return their number.

    Args:
        paths: Files or folders of programs.
        compare: Files or folders of held-out programs to compare with; empty: KernelBench.
        as_json: Whether to print one JSON object for every program instead.
    """
    if not paths:
        raise UsageError("name at least one PATH: a file or a folder")
    console = Console(highlight=False)
    total = found = 0
    for finding in scan_files(paths, reference_of(compare) if compare else None):
        total, found = total + 1, found + finding.contaminated
        if as_json:
            print(finding.model_dump_json())
        elif finding.contaminated:
            match = escape(f"{finding.tier}, like {finding.reference}")
            console.print(f"[red]contaminated[/]  {escape(finding.path)}  ({match})", soft_wrap=True)
    if not as_json:
        console.print(f"{found} of {total} contaminated")
    return found
