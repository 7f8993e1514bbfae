"""A filter of your own, over finished runs. Usage: python own_filter.py synth-output selected

Copies the accepted programs that meet your own criterion into a folder. The ledger holds what validation read
off each program, so most criteria need no look at the text.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import synth_core

MOST_LINES = 80


def objection(operators: Sequence[str], source: str) -> str:
    """Why a program is not wanted; empty if it is wanted. Put your own criterion here."""
    if len(set(operators)) < 3:
        return "fewer than three different operators"
    if source.count("\n") > MOST_LINES:
        return f"more than {MOST_LINES} lines"
    return ""


def main(folder: Path, selected: Path) -> None:
    """Copy the programs that are wanted from `folder`, the output folder of a run, to `selected`."""
    ledger = synth_core.read_ledger(folder, columns=["accepted", "program_name", "realised"])
    accepted = ledger.filter("accepted").select("program_name", "realised")
    selected.mkdir(exist_ok=True)
    for name, operators in accepted.iter_rows():
        file = folder / f"{name}.py"
        reason = objection(operators, file.read_text())
        if not reason:
            shutil.copy2(file, selected)
        print(f"{'left out' if reason else 'selected'}  {name}{reason and ': ' + reason}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: own_filter.py OUTPUT_DIR TARGET")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
