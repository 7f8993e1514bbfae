"""Print what `synth check` and `synth up --check` find, for people or as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape


class Finding(NamedTuple):
    """One fact about the set-up. If it is not ok, `detail` says what to do."""

    name: str
    ok: bool
    detail: str


def show_findings(findings: Iterable[Finding], *, as_json: bool) -> bool:
    """Print each finding as it comes. True if all are ok."""
    console = Console(highlight=False)
    sound = True
    for finding in findings:
        sound &= finding.ok
        if as_json:
            print(json.dumps(finding._asdict()), flush=True)
        else:
            mark = "[green]ok[/]     " if finding.ok else "[red]failed[/] "
            console.print(f"{mark}{finding.name:<13} {escape(finding.detail)}", soft_wrap=True)
    return sound
