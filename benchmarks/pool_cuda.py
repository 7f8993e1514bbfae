"""Tests the pool `gpu` from end to end on a machine with GPUs: `synth up` starts one worker for each GPU.

    python benchmarks/pool_cuda.py [--candidates 768] [--again 64] [--device cpu]

1. `synth up`; then `synth up --check` must report no problem.
2. A run of `--candidates` candidates submits its shards to the pool. Measured: the time, which flow runs of
   `validate` worked at the same time, and the most memory that each GPU used.
3. `--again` candidates with another seed are validated by this process, then again by the pool while the
   process of its flow run is killed. Programs and ledger must be the same.

Exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun

from flows.prefect_server.connection import connected
from flows.prefect_server.workers import gpus
from synth_core.store import scan_ledger

SYNTH = [sys.executable, "-c", "from flows.cli.app import main; main()"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=768, help="0: skip this part")
    parser.add_argument("--again", type=int, default=64)
    parser.add_argument("--device", default="cuda", help="cpu, to try this script where there is no GPU")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="synth-pool-") as folder, upped(Path(folder)) as url:
        os.environ["PREFECT_API_URL"] = url
        good = [
            nothing_is_amiss(url),
            not options.candidates or runs_by_the_pool(Path(folder), options.candidates, options.device),
            is_the_same_by_the_pool(Path(folder), options.again, options.device),
        ]
    print("as it should be" if all(good) else "NOT AS IT SHOULD BE")
    sys.exit(not all(good))


@contextmanager
def upped(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*SYNTH, "up", "--port", str(port), "--home", str(folder / "home"), "--gpu"]
    log, began = folder / "up.log", time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-u", *command[1:]], cwd=folder, stdout=file, stderr=file)
    try:
        while "to stop" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        print(f"synth up: ready after {time.monotonic() - began:.0f} s")
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        for each in sorted((folder / "home").glob("worker-gpu*.log")):
            print(f"--- {each.name}\n{each.read_text()[-1500:]}")


def nothing_is_amiss(url: str) -> bool:
    port = url.split(":")[2].split("/")[0]
    deadline = time.monotonic() + 60
    while True:
        check = subprocess.run(
            [*SYNTH, "up", "--check", "--gpu", "--port", port], capture_output=True, text=True
        )
        all_online = f"pool gpu      {len(gpus()) or 1} workers online" in check.stdout
        good = check.returncode == 0 and all_online
        if good or time.monotonic() > deadline:
            print(f"synth up --check: exit {check.returncode}\n{check.stdout}{check.stderr}")
            return good
        time.sleep(2)


def generate(out: Path, candidates: int, device: str, seed: int, *more: str) -> Any:
    """Run `synth generate --json`. Returns its output."""
    asked = {"num-total-samples": candidates, "seed": seed, "output-dir": out, "device": device}
    options = [part for name, value in asked.items() for part in (f"--{name}", str(value))]
    command = [*SYNTH, "generate", "--json", "--max-retries", "0", *options, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"exit {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


def runs_by_the_pool(folder: Path, candidates: int, device: str) -> bool:
    began = time.monotonic()
    with watched_gpus() as most:
        said = generate(
            folder / "large",
            candidates,
            device,
            7,
            "--validation-pool",
            "gpu",
            "--validation-pool-fallback",
            "fail",
        )
    seconds = time.monotonic() - began
    print(f"{candidates} candidates by the pool: {seconds:.0f} s, {60 * candidates / seconds:.0f} a minute")
    print({name: said.get(name) for name in ("attempted", "accepted", "rejected")})
    for row in _rows(folder / "large"):
        if row["category"]:
            print(f"  {row['program_name']} {row['stage']} {row['category']}: {row['detail']:.120}")
    print(f"most memory a GPU held, MiB: {most}")
    runs = validate_runs()
    for run in runs:
        print(f"  {run.name} {run.state_name}, {_seconds(run):.0f} s from {run.start_time:%H:%M:%S}")
    at_once = max((sum(_overlap(run, other) for other in runs) for run in runs), default=0)
    print(f"flow runs of the pool at the same time: {at_once}")
    ended = all(run.state_name == "Completed" for run in runs)
    return said.get("attempted") == candidates and ended and at_once == min(len(runs), len(gpus()) or 1)


def is_the_same_by_the_pool(folder: Path, candidates: int, device: str) -> bool:
    alone = generate(folder / "alone", candidates, device, 8, "--cache-dir", str(folder / "own-cache"))
    earlier, done = {run.id for run in validate_runs()}, threading.Event()

    def strike() -> None:
        """Kill the process of the flow run when it has started to work."""
        while not (pids := [run.infrastructure_pid for run in validate_runs() if _begun(run, earlier)]):
            if done.wait(1):
                return
        done.wait(5)
        os.kill(int((pids[0] or "").split(":")[-1]), signal.SIGKILL)

    striker = threading.Thread(target=strike)
    striker.start()
    pooled = generate(folder / "pooled", candidates, device, 8, "--validation-pool", "gpu")
    done.set()
    striker.join()
    new = [run for run in validate_runs() if run.id not in earlier]
    print(
        f"{candidates} candidates: {alone.get('accepted')} here, {pooled.get('accepted')} by the pool,"
        f" whose flow run ended as {[run.state_name for run in new]}"
    )
    here, there = _outcome(folder / "alone"), _outcome(folder / "pooled")
    print(f"programs equal: {here[0] == there[0]}; ledger rows that differ: {sorted(here[1] ^ there[1])[:6]}")
    return here == there and [run.state_name for run in new] == ["Crashed"]


def validate_runs() -> list[FlowRun]:
    with connected({}), get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["validate"])))


def _begun(run: FlowRun, earlier: set[UUID]) -> bool:
    return bool(run.id not in earlier and run.start_time and run.infrastructure_pid)


def _seconds(run: FlowRun) -> float:
    return run.total_run_time.total_seconds()


def _overlap(one: FlowRun, other: FlowRun) -> bool:
    """Whether the other flow run was working when this one started."""
    if not (one.start_time and other.start_time):
        return False
    return other.start_time <= one.start_time < (other.end_time or one.start_time + timedelta(seconds=1))


def _outcome(out: Path) -> tuple[dict[str, str], set[tuple[str, ...]]]:
    columns = "candidate_id", "stage", "category", "program_name"
    ledger = {tuple(str(row[name]) for name in columns) for row in _rows(out)}
    return {path.name: path.read_text() for path in out.glob("*.py")}, ledger


def _rows(out: Path) -> list[dict[str, Any]]:
    (run,) = out.glob(".synth/runs/*")
    return scan_ledger(out, run.name).collect().to_dicts()


@contextmanager
def watched_gpus() -> Iterator[list[int]]:
    """The most memory used on each GPU during the block, in MiB. Empty without nvidia-smi."""
    most: list[int] = []
    done = threading.Event()

    def watch() -> None:
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not done.wait(1.0):
            try:
                now = [
                    int(line)
                    for line in subprocess.run(command, capture_output=True, text=True).stdout.split()
                ]
            except OSError:
                return
            most[:] = [max(pair) for pair in zip(now, most or now, strict=True)]

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    main()
