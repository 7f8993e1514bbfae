"""Client of the constructive synthesizer. It runs in warm child processes; only these import torch."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth_core.errors import EnvironmentFault
from synth_core.records import GpuSizes

DEADLINE = 120.0  # seconds for one program, with the start of the child; 0.02 is usual


@dataclass(frozen=True)
class WrittenProgram:
    """A program and its plan.

    plan: the steps of `forward` in words, with shapes.
    lines: number of statements in `forward`.
    glue: number of statements that only adapt a shape.
    chain: no statement joins two branches.
    """

    source: str
    plan: str
    lines: int = 0
    glue: int = 0
    chain: bool = False


class Synthesizer:
    """Writes programs in up to `workers` children at once. Thread-safe. A child starts at its first use."""

    def __init__(self, workers: int) -> None:
        self._free: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._children = [_Child() for _ in range(max(workers, 1))]
        for child in reversed(self._children):
            self._free.put(child)

    def write(self, operators: Sequence[str], seed: int) -> WrittenProgram | str:
        """Write a program that uses `operators`. Returns it, or one line that says why none was found.

        The same arguments give the same text on every machine; earlier requests do not matter.
        Raises `EnvironmentFault` if the child dies or hangs twice on the same request.
        """
        reply = self._ask({"operators": list(operators), "seed": seed})
        return str(reply["error"]) if "error" in reply else WrittenProgram(**reply)

    def enlarge(self, source: str, sets: int = 0, seed: int = 0) -> GpuSizes | str:
        """Find GPU sizes for a program. Returns them, or one line that says why there are none.

        source: a text that `write` returned. The child runs it without a sandbox, so pass no other text.
        sets: how many further shape sets to look for.
        Raises `EnvironmentFault` if the child dies or hangs twice on the same request.
        """
        reply = self._ask({"source": source, "sets": sets, "seed": seed})
        return str(reply["error"]) if "error" in reply else GpuSizes(**reply)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._free.get()
        try:
            reply = child.ask({"id": 0, **request})
        finally:
            self._free.put(child)
        del reply["id"]
        return reply

    def close(self) -> None:
        """End the children."""
        for child in self._children:
            child.stop()


class _Child:
    """One child process, started at the first request and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        for _ in range(2):
            try:
                return self._exchange(json.dumps(request) + "\n")
            except (OSError, ValueError):  # the pipe broke, or the child ended within a line
                self.stop()
        raise EnvironmentFault(f"the synthesizer died twice on {request}")

    def _exchange(self, row: str) -> dict[str, Any]:
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        alarm = threading.Timer(DEADLINE, process.kill)
        alarm.start()
        try:
            process.stdin.write(row)
            process.stdin.flush()
            reply: dict[str, Any] = json.loads(process.stdout.readline())
            return reply
        finally:
            alarm.cancel()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _start() -> subprocess.Popen[str]:
    """Start a child in a clean environment: no keys, none of our options, one thread, fixed hashes."""
    root = Path(__file__).resolve().parents[2]
    passed_on = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    environment = {**passed_on, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "synth_core.synthesis"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        start_new_session=True,  # Ctrl-C reaches this process only
    )
