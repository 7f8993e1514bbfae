"""Child processes of this package: started with a log, restarted with a backoff, ended with their parent.

A child ends when its standard input ends. The parent holds the other end of that pipe, so no child outlives
its parent, however the parent dies. The server's child watches its input itself. `python -m
flows.prefect_server.children MODULE ARGUMENTS` does it for a module that does not, such as Prefect's worker.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

GRACE_SECONDS = 20.0  # from the end of standard input, when SIGTERM is sent, to SIGKILL
_MAX_LOG_BYTES = 2**20  # a child that dies again and again must not fill the disk
_SHORT_LIFE = 60.0  # seconds
_FIRST_PAUSE = 0.1  # seconds


def start_child(
    arguments: Sequence[str], variables: Mapping[str, str], log: Path, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start Python as a child of this process.

    variables: the whole environment of the child. log: the file that its output is appended to.
    """
    with open_log(log) as output:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
            start_new_session=True,  # Ctrl-C goes to the parent, which then ends the child in order
        )


def open_log(path: Path) -> IO[bytes]:
    """Open a child's log for appending, so that the last words of an earlier child stay.

    A log that has grown long is renamed to `PATH.1` first and replaces the previous `PATH.1`.
    """
    if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def ask_to_end(child: subprocess.Popen[bytes]) -> None:
    """End the child's standard input. Returns at once."""
    assert child.stdin is not None
    child.stdin.close()


def end_child(child: subprocess.Popen[bytes], patience: float = GRACE_SECONDS + 5) -> None:
    """Ask the child to end and wait for that; kill it after `patience` seconds."""
    ask_to_end(child)
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class RestartBackoff:
    """When a child that died should start again: at once, but later and later if it keeps dying young.

    longest: the most seconds to wait. in_a_row: how many lives in a row lasted less than a minute.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._began = time.monotonic()
        self.in_a_row = 0

    def started(self) -> None:
        self._began = time.monotonic()

    def died(self) -> float:
        """Count the death. Returns the seconds to wait before the next start."""
        self.in_a_row = self.in_a_row + 1 if time.monotonic() - self._began < _SHORT_LIFE else 0
        return min(self._longest, _FIRST_PAUSE * 2.0**self.in_a_row)


def last_line(log: Path) -> str:
    """Return the last line of a child's log, stripped; empty if the log is empty."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _end_with_parent() -> None:
    os.read(0, 1)  # the parent never writes, so this returns when the input ends
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # A shell's background jobs ignore SIGINT, and their children inherit that. Prefect's workers end by
    # SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
