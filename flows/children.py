"""What the server and the workers of `synth up` have in common as children of this process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO

_LONGEST_LOG = 2**20  # bytes; a child that dies again and again fills no disk
_SHORT_LIFE = 60.0
_FIRST_PAUSE = 0.1


def open_log(path: Path) -> IO[bytes]:
    """The log of a child, to go on with: what an earlier one said last stays.

    A long one is put aside under the name of `path` with `.1`, and replaces the one put aside before.
    """
    if path.exists() and path.stat().st_size > _LONGEST_LOG:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


class Restarts:
    """When a child that died is to start again: at once, but later and later if it keeps dying young.

    longest: most seconds to wait. in_a_row: lives of less than a minute without a longer one in between.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._began = time.monotonic()
        self.in_a_row = 0

    def started(self) -> None:
        self._began = time.monotonic()

    def died(self) -> float:
        """Count the death; seconds to wait before the next life."""
        self.in_a_row = self.in_a_row + 1 if time.monotonic() - self._began < _SHORT_LIFE else 0
        return min(self._longest, _FIRST_PAUSE * 2.0**self.in_a_row)


def last_line(log: Path) -> str:
    """What a child said last, without surrounding blanks; empty where it said nothing."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
