"""What `synth check` and `synth up --check` find: one fact at a time, for people or as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape


class Finding(NamedTuple):
    """One fact about the set-up; `detail` says what to do where it is not ok."""

    name: str
    ok: bool
    detail: str


def show_findings(findings: Iterable[Finding], *, as_json: bool) -> bool:
    """Print facts as they are found; True when all are as they should be."""
    console = Console(highlight=False)
    sound = True
    for finding in findings:
        sound &= finding.ok
        if as_json:
            print(json.dumps(finding._asdict()), flush=True)
        else:
            mark = "[green]ok[/]     " if finding.ok else "[red]amiss[/]  "
            console.print(f"{mark}{finding.name:<13} {escape(finding.detail)}", soft_wrap=True)
    return sound
