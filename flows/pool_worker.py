"""A Prefect worker of one pool as a child of this process: started again when it dies, ended with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flows.children import Restarts, open_log
from flows.tied import PATIENCE

_LONGEST_PAUSE = 60.0  # seconds between two lives of a worker that dies young


class PoolWorker:
    """Starts at once.

    options: Prefect's settings, as variables; they say which server. folder: where its log lies.
    limit: most flow runs at once; 0: no limit.
    """

    def __init__(self, pool: str, options: Mapping[str, str], folder: Path, *, limit: int = 0) -> None:
        self.log = folder / f"worker-{pool}.log"
        self._pool, self._options, self._limit = pool, options, limit
        self._restarts = Restarts(_LONGEST_PAUSE)
        self._due: float | None = None  # when a dead one is started again
        self._child = self._start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def tend(self, say: Callable[[str], None]) -> None:
        """To be called every second or so: starts it again when it died, and says so."""
        if self._child.poll() is None:
            return
        if self._due is None:
            pause = self._restarts.died()
            self._due = time.monotonic() + pause
            say(
                f"the worker of the pool {self._pool} ended with exit code {self._child.returncode};"
                f" {self.log} says why; it starts again in {pause:.0f} s"
            )
        if time.monotonic() >= self._due:
            self.end()  # what is left of the dead one
            self._child = self._start()
            self._restarts.started()
            self._due = None

    def end(self) -> None:
        """Ask it to end its flow runs and itself; returns at once."""
        assert self._child.stdin is not None
        self._child.stdin.close()

    def wait(self) -> None:
        """Until it has ended, in order or by force."""
        try:
            self._child.wait(PATIENCE + 5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        limit = ("--limit", str(self._limit)) if self._limit else ()
        command = ("prefect", "worker", "start", "--pool", self._pool, "--type", "process", *limit)
        with open_log(self.log) as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.tied", *command],
                env={**os.environ, **self._options, "PREFECT_WORKER_QUERY_SECONDS": "5"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for `synth up`, which ends it in order
            )
