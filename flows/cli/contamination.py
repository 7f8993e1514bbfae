"""`synth contamination scan`: which programs are like a benchmark's, a line for each that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from synth_core.errors import UsageError
from synth_core.filtering.contamination import reference_of, scan_files


def scan_folders(paths: Sequence[Path], compare: Sequence[Path], *, as_json: bool) -> int:
    """Print what was found and return how many programs are contaminated.

    compare: files or folders of held-out programs to compare with; empty: KernelBench.
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
            match = escape(f"{finding.match}, like {finding.reference}")
            console.print(f"[red]contaminated[/]  {escape(finding.path)}  ({match})", soft_wrap=True)
    if not as_json:
        console.print(f"{found} of {total} contaminated")
    return found
