"""Prefect workers of the pools as children of this process: started again when they die, ended with it."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from flows.prefect_server.children import GRACE_SECONDS, RestartBackoff, open_log

_DEVICE = re.compile(r"\d+|(GPU|MIG)-.+")
_LONGEST_PAUSE = 60.0  # seconds between two lives of a worker that dies young


def gpus(devices: Path = Path("/dev")) -> list[str]:
    """This machine's GPUs as CUDA_VISIBLE_DEVICES names them; where it is set, those that it leaves.

    As CUDA reads it: what follows on the first odd name does not count.
    """
    # A container may have /dev/nvidia3 alone; for CUDA that is the first.
    here = [str(i) for i, _ in enumerate(devices.glob("nvidia[0-9]*"))]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not here or chosen is None:
        return here
    names = (name.strip() for name in chosen.split(","))
    return list(dict.fromkeys(itertools.takewhile(_DEVICE.fullmatch, names)))


def start_gpu_workers(
    options: Mapping[str, str], folder: Path, devices: Sequence[str]
) -> Iterator[PoolWorker]:
    """A worker of the pool `gpu` for each device, one flow run at a time; they share the cores out.

    Without a device one worker, which validates on the CPU.
    """
    if not devices:
        yield PoolWorker("gpu", options, folder, limit=1)
    cores = sorted(os.sched_getaffinity(0))
    for i, device in enumerate(devices):
        share = cores[i * len(cores) // len(devices) : (i + 1) * len(cores) // len(devices)]
        own = {**options, "CUDA_VISIBLE_DEVICES": device}
        yield PoolWorker("gpu", own, folder, name=f"gpu-{i}", limit=1, cores=share or cores)


class PoolWorker:
    """Starts at once.

    options: Prefect's settings, as variables; they say which server. folder: where its log lies.
    name: of the log; empty: the pool's. limit: most flow runs at once; 0: no limit. cores: those it may use;
    empty: all. A flow run validates as many programs at once as it has cores.
    """

    def __init__(
        self,
        pool: str,
        options: Mapping[str, str],
        folder: Path,
        *,
        name: str = "",
        limit: int = 0,
        cores: Sequence[int] = (),
    ) -> None:
        self.log = folder / f"worker-{name or pool}.log"
        self._pool, self._options, self._limit, self._cores = pool, options, limit, cores
        self._restarts = RestartBackoff(_LONGEST_PAUSE)
        self._due: float | None = None  # when a dead one is started again
        self._child = self._start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def restart_if_dead(self, say: Callable[[str], None]) -> None:
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
            self._child.wait(GRACE_SECONDS + 5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        limit = ("--limit", str(self._limit)) if self._limit else ()
        command = ("prefect", "worker", "start", "--pool", self._pool, "--type", "process", *limit)
        with open_log(self.log) as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "flows.prefect_server.children", *command],
                env={**os.environ, **self._options, "PREFECT_WORKER_QUERY_SECONDS": "5"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for `synth up`, which ends it in order
            )
        if self._cores:
            os.sched_setaffinity(child.pid, self._cores)  # before it has threads or children
        return child
