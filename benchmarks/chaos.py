"""Disturbs runs: kills their parts at random, fills their disks, moves their clocks. Checks the results.

    python benchmarks/chaos.py --kills 5                          # simulated validation: under three minutes
    python benchmarks/chaos.py --kills 100 --ways threads,private,dask,real
    python benchmarks/chaos.py --kills 10 --ways deployed         # by `synth up`, worker and deployment
    python benchmarks/chaos.py --kills 10 --ways postgres         # a server on PostgreSQL, which dies too

A loopback LLM answers by the prompt alone and records what it was asked. One run is not disturbed. Each other
run has its own folder and cache, and is disturbed again and again (`VICTIMS` in chaos_trial.py lists how).
When it dies, `synth resume` or the deployment's next run continues it.

In the end, each run must have the same programs and ledger as the undisturbed one. Only calls that were in
flight when something died may have been asked twice. No server may list a run as still running, and neither
may the history of a private server. Exits with 1 otherwise. Filling a disk needs the permission to mount one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from chaos_llm import PROMPT, STRATEGY
from chaos_postgres import Postgres
from chaos_trial import WAYS, Host, Trial, set_clock
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, TaskRun

from flows.prefect_server import automations, dead_runs
from flows.prefect_server.connection import connected
from flows.prefect_server.server import PRIVATE, Server

HERE = Path(__file__).parent
MOST_STRIKES_A_RUN = 8
SILENCE = timedelta(seconds=90)  # three heartbeats
LOSE_EVENTS = ("server SIGKILL", "PostgreSQL SIGKILL", "worker SIGKILL", "clock jump")
ENDS_WITHIN = 240.0  # seconds: `SILENCE`, and time for a slow server
UP = """
import sys
from pathlib import Path
from flows.prefect_server.up import up
up(port=int(sys.argv[1]), home=Path("home"), gpu=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    parser.add_argument("--ways", default="threads,private", help=f"comma-separated, of {', '.join(WAYS)}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="synth-chaos-") as folder:
        sys.exit(0 if chaos(options, Path(folder)) else 1)


def chaos(options: argparse.Namespace, folder: Path) -> bool:
    """Disturb one run after another until there were enough strikes. Returns whether all were equal."""
    rng, struck, runs, sound = random.Random(options.seed), Counter[str](), 0, True
    ways = options.ways.split(",")
    calm: dict[bool, Trial] = {}
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(start_host(folder, options.candidates, ways))
        while struck.total() < options.kills:
            way = ways[runs % len(ways)]
            judged = way in ("real", "deployed")  # with the real engine, else with the simulated one
            if judged not in calm:
                calm[judged] = stack.enter_context(Trial(folder / f"calm-{way}", way, host))
                calm[judged].go_undisturbed()
            runs += 1
            with Trial(folder / f"wild-{runs}", way, host) as wild:
                most = min(MOST_STRIKES_A_RUN, options.kills - struck.total())
                wild.disturb(rng, calm[judged].seconds, most)
                struck.update(wild.struck)
                sound &= wild.equals(calm[judged])
        lossy = any(struck[strike] for strike in LOSE_EVENTS)
        sound &= nothing_runs(host.url, folder / "asking", lossy)
    kinds = ", ".join(f"{victim} {count}" for victim, count in sorted(struck.items()))
    print(f"{struck.total()} kills in {runs} runs ({kinds}): {'all equal' if sound else 'NOT ALL EQUAL'}")
    return sound


@contextlib.contextmanager
def start_host(folder: Path, candidates: int, ways: list[str]) -> Iterator[Host]:
    """Start a server for all runs, or everything that `synth up` starts, and the mover of clocks."""
    library, clock, strategy = folder / "clock.so", folder / "clock", folder / "chaos.toml"
    build = ["g++", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "chaos_clock.cpp"), "-ldl"]
    subprocess.run(build, check=True)
    clock.write_bytes(bytes(8))
    (folder / "prompt.j2").write_text(PROMPT)
    strategy.write_text(STRATEGY.replace("PROMPT_FILE", str(folder / "prompt.j2")))
    os.environ.update(LD_PRELOAD=str(library), CHAOS_CLOCK=str(clock))  # for child processes
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(Postgres()) if "postgres" in ways else None
        start = run_up(folder) if "deployed" in ways else run_server(folder, database)
        yield Host(stack.enter_context(start), clock, candidates, strategy, database)
        set_clock(clock, 0)


@contextlib.contextmanager
def run_server(folder: Path, database: Postgres | None) -> Iterator[str]:
    """Run a team's server as in docs/deploying.md, but with shorter times for heartbeats and silence."""
    there = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url} if database else {}
    triggers = {"PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "true"}
    os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = "30"  # of the runs
    with Server(folder / "server", options=PRIVATE | triggers | there) as server:
        with connected({"PREFECT_API_URL": server.url, "PREFECT_HOME": str(folder / "server")}):
            automations.create(SILENCE)
        yield server.url


@contextlib.contextmanager
def run_up(folder: Path) -> Iterator[str]:
    """Run `synth up` in its own process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "up.log"
    with log.open("wb") as file:
        command = [sys.executable, "-u", "-c", UP, str(port)]
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
    try:
        while "to stop" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.terminate()
        process.wait()


def nothing_runs(url: str, home: Path, lossy: bool) -> bool:
    """Whether every flow run and task run of Synth ends: marked by the automation, or else by the next run.

    The automation may miss runs whose events a dying server lost (`lossy`), but no others. The next run
    treats a run as dead if it has been silent for long enough.
    """
    with connected({"PREFECT_API_URL": url, "PREFECT_HOME": str(home)}):
        deadline = time.monotonic() + ENDS_WITHIN
        while (names := at_work()) and time.monotonic() < deadline:
            time.sleep(5)
        left = names
        print(f"flow runs left to the next run, not marked by the automation: {', '.join(left) or 'none'}")
        deadline = time.monotonic() + 2 * SILENCE.total_seconds()
        while (names := at_work(task_runs=True)) and time.monotonic() < deadline:
            dead_runs.crash_zombies(SILENCE)
            time.sleep(5)
    print(f"runs that never ended: {', '.join(names) or 'none'}")
    return not names and (lossy or not left)


def at_work(*, task_runs: bool = False) -> list[str]:
    """Names of flow runs without a final state, and of such task runs too, if requested."""
    with get_client(sync_client=True) as client:
        runs: list[FlowRun | TaskRun] = [*client.read_flow_runs(flow_run_filter=dead_runs.FLOW_RUNS_AT_WORK)]
        if task_runs:
            runs += client.read_task_runs(task_run_filter=dead_runs.TASK_RUNS_AT_WORK)
    return [run.name for run in runs]


if __name__ == "__main__":
    main()
