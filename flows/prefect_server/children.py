"""Child processes of `synth up`: logs, restarts, and an end together with the parent.

`python -m flows.prefect_server.children MODULE ARGUMENTS` runs that module as a command that ends when its
standard input ends. So it cannot outlive the parent that holds the other end, however the parent dies.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO

_LONGEST_LOG = 2**20  # bytes; a child that dies again and again fills no disk
_SHORT_LIFE = 60.0
_FIRST_PAUSE = 0.1
GRACE_SECONDS = 20.0  # seconds from the end of standard input, and SIGTERM with it, to SIGKILL


def open_log(path: Path) -> IO[bytes]:
    """The log of a child, to go on with: what an earlier one said last stays.

    A long one is put aside under the name of `path` with `.1`, and replaces the one put aside before.
    """
    if path.exists() and path.stat().st_size > _LONGEST_LOG:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


class RestartBackoff:
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


def _watch() -> None:
    os.read(0, 1)  # nothing is ever written: this returns at the end of the input
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # A script's background jobs ignore SIGINT, and so would this, which Prefect's workers end by.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
