"""Prefect workers as children of this process: restarted when they die, ended when this process ends."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from flows.prefect_server import children
from flows.prefect_server.children import RestartBackoff, ask_to_end, end_child, start_child

_DEVICE = re.compile(r"\d+|(GPU|MIG)-.+")
_LONGEST_PAUSE = 60.0  # seconds before a worker that keeps dying young is restarted


def gpus(devices: Path = Path("/dev")) -> list[str]:
    """Return this machine's GPUs as CUDA_VISIBLE_DEVICES names them; if it is set, only those that it names.

    CUDA ignores everything after the first invalid name, and so does this.
    """
    # A container may have /dev/nvidia3 alone. CUDA then calls that device 0.
    here = [str(i) for i, _ in enumerate(devices.glob("nvidia[0-9]*"))]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not here or chosen is None:
        return here
    names = (name.strip() for name in chosen.split(","))
    return list(dict.fromkeys(itertools.takewhile(_DEVICE.fullmatch, names)))


def start_gpu_workers(
    options: Mapping[str, str], folder: Path, devices: Sequence[str]
) -> Iterator[PoolWorker]:
    """Start a worker of the pool `gpu` for each device, with its share of cores, for one flow run at a time.

    Without a device, start one worker, which validates on the CPU.
    """
    if not devices:
        yield PoolWorker("gpu", options, folder, limit=1)
    cores = sorted(os.sched_getaffinity(0))
    for i, device in enumerate(devices):
        share = cores[i * len(cores) // len(devices) : (i + 1) * len(cores) // len(devices)]
        own = {**options, "CUDA_VISIBLE_DEVICES": device}
        yield PoolWorker("gpu", own, folder, name=f"gpu-{i}", limit=1, cores=share or cores)


class PoolWorker:
    """A worker process; it starts when this is created.

    options: Prefect's settings as environment variables; they name the server. folder: where the log goes.
    name: of the log; empty means the pool's name. limit: how many flow runs it takes at once; 0 means no
    limit. cores: those that it may use; empty means all. A flow run validates as many programs at once as
    it has cores.
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
        self._backoff = RestartBackoff(_LONGEST_PAUSE)
        self._due: float | None = None  # when a dead worker is restarted
        self._child = self._start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def restart_if_dead(self, say: Callable[[str], None]) -> None:
        """Restart the worker if it died, after a pause, and say so. Call this about once a second."""
        if self._child.poll() is None:
            return
        if self._due is None:
            pause = self._backoff.died()
            self._due = time.monotonic() + pause
            say(
                f"the worker of the pool {self._pool} ended with exit code {self._child.returncode};"
                f" {self.log} says why; it starts again in {pause:.0f} s"
            )
        if time.monotonic() >= self._due:
            self.ask_to_end()  # closes the pipe to the dead one
            self._child = self._start()
            self._backoff.started()
            self._due = None

    def ask_to_end(self) -> None:
        """Ask the worker to cancel its flow runs and to end. Returns at once."""
        ask_to_end(self._child)

    def end(self) -> None:
        """Ask the worker to end and wait until it has ended. It is killed if that takes too long."""
        end_child(self._child)

    def _start(self) -> subprocess.Popen[bytes]:
        limit = ("--limit", str(self._limit)) if self._limit else ()
        worker = ("prefect", "worker", "start", "--pool", self._pool, "--type", "process", *limit)
        variables = {**os.environ, **self._options, "PREFECT_WORKER_QUERY_SECONDS": "5"}
        child = start_child(["-m", children.__name__, *worker], variables, self.log)
        if self._cores:
            os.sched_setaffinity(child.pid, self._cores)  # before it has threads or children
        return child
