"""One run that is disturbed again and again, the kinds of strikes, and the comparison with a calm run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from chaos_llm import Llm
from chaos_postgres import Postgres

from synth_core.store import RunState, load_run, run_ids, scan_ledger

DISK_MIB = 256
LONGEST_JUMP = 40 * 86_400  # seconds, forward or backward
SETTLES = 3.0  # seconds after which a full disk or a dead server no longer affects calls


@dataclass
class Host:
    """What outlives a run. url: the API for all `WAYS` except `private`. clock: the file for clock jumps."""

    url: str
    clock: Path
    candidates: int
    strategy: Path
    database: Postgres | None = None


class Trial:
    """One run with its own folder and its own LLM. `way` is a row of `WAYS`.

    seconds: how long it took, undisturbed. struck: by what it was, in order.
    """

    def __init__(self, folder: Path, way: str, host: Host) -> None:
        self.folder, self.way, self.host = folder, way, host
        self.llm = Llm()
        self.seconds = 0.0
        self.struck: list[str] = []
        self._lossy: list[tuple[float, float]] = []  # periods in which answers may have been lost
        self.process: subprocess.Popen[bytes]
        (folder / "disk").mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder / "disk")]
        self.has_disk = subprocess.run(mount, capture_output=True).returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.llm.close()
        if self.has_disk:
            subprocess.run(["umount", "--lazy", str(self.folder / "disk")], check=True)

    @property
    def out(self) -> Path:
        return self.folder / "disk" / "out"

    def go_undisturbed(self) -> None:
        began = time.monotonic()
        self._start()
        code = self.process.wait()
        self.seconds = time.monotonic() - began
        assert code == 0, self.log()
        print(f"undisturbed ({self.way}): {len(self.programs())} programs, {len(self.llm.calls)} calls")

    def disturb(self, rng: random.Random, longest: float, most: int) -> None:
        """Carry out the run with a limited number of strikes, and resume it whenever it dies."""
        self._start()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(rng.uniform(0.3, longest / 3) if len(self.struck) < most else None)
            if self.process.poll() is None:
                victim = rng.choice(WAYS[self.way])
                began = time.monotonic()
                if VICTIMS[victim](self, rng):
                    self.struck.append(victim)
                    self._lossy.append((began, time.monotonic() + SETTLES))
                    self._note(f"struck: {victim}")
            elif self.process.returncode == 0:
                return
            else:
                self._lossy.append((self._lossy[-1][0] if self._lossy else 0.0, time.monotonic()))
                self._start()

    def equals(self, calm: Trial) -> bool:
        """Whether programs and ledger are the same, and only calls in flight at a strike were asked again."""
        mine, theirs = self.programs(), calm.programs()
        again, lost = (self.llm.asked - calm.llm.asked).total(), self.llm.at_risk(self._lossy)
        differences = []
        if mine != theirs:
            differences.append(f"programs differ: {sorted(mine.keys() ^ theirs.keys())}")
        if rows := self.ledger() ^ calm.ledger():
            differences.append(f"ledgers differ: {sorted(rows)[:6]}")
        if at_work := self._at_work():
            differences.append(f"the history of its server shows as at work: {at_work}")
        if again > lost:
            differences.append("answers that were received were asked for again")
        text = "; ".join(differences) or "equal"
        print(f"{self.folder.name} ({self.way}): {len(mine)} programs, asked again {again} of {lost}, {text}")
        print(f"    {', '.join(self.struck) or 'nothing struck'}", flush=True)
        if differences:
            print(self.log())
        return not differences

    def programs(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.out.glob("*.py")}

    def ledger(self) -> set[tuple[str, ...]]:
        """What became of each attempt of the folder's first run that completed.

        A deployment's run first resumes the folder's interrupted run, then makes its own. If the resume meets
        a full disk, that run is left to the run after, and the deployment's own run has the same seed here.
        """
        runs = [load_run(self.out, run_id) for run_id in run_ids(self.out)]
        completed = [run.folder for run in runs if run.state is RunState.COMPLETED]
        first = min(completed, key=_oldest_file)
        rows = scan_ledger(self.out, first.name).select("candidate_id", "stage", "category", "program_name")
        return {tuple(str(value) for value in row) for row in rows.collect().iter_rows()}

    def _at_work(self) -> list[str]:
        """Flow runs without a final state in the history of a private server."""
        if not (history := self.out / ".synth" / "prefect" / "prefect.db").exists():
            return []
        with contextlib.closing(sqlite3.connect(history)) as database:
            ask = "select name from flow_run where state_type in ('RUNNING', 'PENDING', 'CANCELLING')"
            return [name for (name,) in database.execute(ask)]

    def log(self) -> str:
        return (self.folder / "log").read_text()[-6000:]

    def _note(self, line: str) -> None:
        with (self.folder / "log").open("a") as log:
            log.write(f"--- {line}\n")

    def _start(self) -> None:
        """Start the run as a process, like `synth generate`, or like `synth resume` if a run exists."""
        order = {
            "way": self.way,
            "out": str(self.out),
            "cache": str(self.folder / "disk" / "cache"),
            "strategy": str(self.host.strategy),
            "url": self.llm.url,
            "candidates": self.host.candidates,
            "resume": bool(list(self.out.glob(".synth/runs/*/run.json"))),
        }
        server = {"PREFECT_HOME": str(self.folder / "home")}
        if self.way != "private":
            server["PREFECT_API_URL"] = self.host.url
        self._note(f"start, resume={order['resume']}")
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, str(Path(__file__).with_name("chaos_run.py")), json.dumps(order)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **server})

    def find(self, text: str) -> list[int]:
        """Processes of this run, or else of its host, whose command line contains the text."""
        for root in (self.process.pid, os.getpid()):
            if found := [pid for pid in descendants(root) if text in command_of(pid)]:
                return found
        return []


def _oldest_file(folder: Path) -> float:
    """When a run began. Its name does not tell this reliably, because its clock may have jumped."""
    return min(path.stat().st_mtime for path in folder.rglob("*") if path.is_file())


Strike = Callable[[Trial, random.Random], bool]


def kill_flow(name: str) -> Strike:
    """Kill the process of the flow. If a worker started it, `trial.process` only waits for it."""

    def strike(trial: Trial, _: random.Random) -> bool:
        if trial.way != "deployed":
            trial.process.send_signal(signal.Signals[name])
            trial.process.wait()
            return True
        return kill_all(trial.find("prefect.engine") or trial.find("flow-run execute"), name)

    return strike


def kill_parts(text: str) -> Strike:
    return lambda trial, _: kill_all(trial.find(text), "SIGKILL")


def kill_one_dask_worker(trial: Trial, rng: random.Random) -> bool:
    workers = trial.find("multiprocessing.spawn")
    return kill_all([rng.choice(workers)] if workers else [], "SIGKILL")


def lose_database(trial: Trial, _: random.Random) -> bool:
    """Kill the private server and delete its history."""
    servers = trial.find("flows.prefect_server.server")
    files = list(trial.out.glob(".synth/prefect/prefect.db*"))
    for file in files:
        file.unlink(missing_ok=True)
    return bool(files) and kill_all(servers, "SIGKILL")


def kill_postgres(trial: Trial, rng: random.Random) -> bool:
    if not trial.host.database:
        return False
    trial.host.database.strike(rng.uniform(0.5, 8.0))
    return True


def fill_disk(trial: Trial, rng: random.Random) -> bool:
    """Fill the run's disk for a while."""
    if not trial.has_disk:
        return False
    filler = trial.folder / "disk" / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**20))
    time.sleep(rng.uniform(0.5, 4.0))
    filler.unlink(missing_ok=True)
    return True


def jump(trial: Trial, rng: random.Random) -> bool:
    """Move the wall clock of the run and of its server."""
    set_clock(trial.host.clock, rng.uniform(-LONGEST_JUMP, LONGEST_JUMP))
    return True


def set_clock(path: Path, seconds: float) -> None:
    with path.open("r+b") as file:
        file.write(struct.pack("<q", int(seconds * 1e9)))


VICTIMS: dict[str, Strike] = {
    "flow SIGKILL": kill_flow("SIGKILL"),
    "flow SIGTERM": kill_flow("SIGTERM"),
    "flow SIGINT": kill_flow("SIGINT"),
    "server SIGKILL": kill_parts("flows.prefect_server.server"),
    "database lost": lose_database,
    "PostgreSQL SIGKILL": kill_postgres,
    "worker SIGKILL": kill_parts("prefect worker start"),
    "Dask worker SIGKILL": kill_one_dask_worker,
    "zygotes SIGKILL": kill_parts("validation.supervisor.zygote"),
    "disk full": fill_disk,
    "clock jump": jump,
}
_ALWAYS = ("flow SIGKILL", "flow SIGTERM", "flow SIGINT", "server SIGKILL", "disk full", "clock jump")
# How a run can be carried out, and what may strike it then.
WAYS: dict[str, tuple[str, ...]] = {
    "threads": _ALWAYS,
    "private": (*_ALWAYS, "database lost"),
    "postgres": (*_ALWAYS, "PostgreSQL SIGKILL", "PostgreSQL SIGKILL", "PostgreSQL SIGKILL"),
    "dask": (*_ALWAYS, "Dask worker SIGKILL", "Dask worker SIGKILL"),
    "real": (*_ALWAYS, "zygotes SIGKILL", "zygotes SIGKILL"),
    "deployed": (*_ALWAYS, "worker SIGKILL", "zygotes SIGKILL"),
}


def kill_all(pids: list[int], name: str) -> bool:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.Signals[name])
    return bool(pids)


def descendants(pid: int) -> list[int]:
    """All descendants of this process."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            parents.setdefault(int(text.rsplit(")", 1)[1].split()[1]), []).append(int(stat.parent.name))
    found, front = [], [pid]
    while front:
        front = [child for parent in front for child in parents.get(parent, [])]
        found += front
    return found


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""
