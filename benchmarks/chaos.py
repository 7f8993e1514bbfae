"""Kills parts of runs at random, fills their disks, moves their clocks; then compares with a calm run.

    python benchmarks/chaos.py --kills 5                          # simulated validation: under three minutes
    python benchmarks/chaos.py --kills 100 --ways threads,private,dask,real
    python benchmarks/chaos.py --kills 10 --ways deployed         # by `synth up`, worker and deployment
    python benchmarks/chaos.py --kills 10 --ways postgres         # a server on PostgreSQL, which dies too

An LLM that answers by its prompt alone serves on the loopback and remembers what it was asked. One run goes
undisturbed. Further ones, with folders and caches of their own, are struck again and again (`VICTIMS` in
chaos_trial.py says by what) and go on by `synth resume`, or by the deployment's next run, whenever they
died. In the end each must have the programs and the ledger of the calm one; beyond what that asked, only
calls that were in flight when something died may have been asked again. Once the next run has started, the
server may show no run as unfinished, nor may the history of a private server. Exits with 1 if any of this
fails. A disk can be filled only where we may mount one.
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

from flows.prefect_server import dead_runs
from flows.prefect_server.connection import connected
from flows.prefect_server.server import PRIVATE, Server

HERE = Path(__file__).parent
MOST_STRIKES_A_RUN = 8
SILENCE = timedelta(seconds=90)  # three heartbeats
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
    """Disturb one run after the other until there were enough strikes; whether all came out right."""
    rng, struck, runs, sound = random.Random(options.seed), Counter[str](), 0, True
    ways = options.ways.split(",")
    calm: dict[bool, Trial] = {}
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(start_host(folder, options.candidates, ways))
        while struck.total() < options.kills:
            way = ways[runs % len(ways)]
            judged = way in ("real", "deployed")  # by the real engine, else by the simulated one
            if judged not in calm:
                calm[judged] = stack.enter_context(Trial(folder / f"calm-{way}", way, host))
                calm[judged].go_undisturbed()
            runs += 1
            with Trial(folder / f"wild-{runs}", way, host) as wild:
                most = min(MOST_STRIKES_A_RUN, options.kills - struck.total())
                wild.disturb(rng, calm[judged].seconds, most)
                struck.update(wild.struck)
                sound &= wild.equals(calm[judged])
        sound &= nothing_runs(host.url, folder / "asking")
    kinds = ", ".join(f"{victim} {count}" for victim, count in sorted(struck.items()))
    print(f"{struck.total()} kills in {runs} runs ({kinds}): {'all equal' if sound else 'NOT ALL EQUAL'}")
    return sound


@contextlib.contextmanager
def start_host(folder: Path, candidates: int, ways: list[str]) -> Iterator[Host]:
    """A server for all runs, or all that `synth up` starts; and what moves the clocks of its children."""
    library, clock, strategy = folder / "clock.so", folder / "clock", folder / "chaos.toml"
    build = ["g++", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "chaos_clock.cpp"), "-ldl"]
    subprocess.run(build, check=True)
    clock.write_bytes(bytes(8))
    (folder / "prompt.j2").write_text(PROMPT)
    strategy.write_text(STRATEGY.replace("PROMPT_FILE", str(folder / "prompt.j2")))
    os.environ.update(LD_PRELOAD=str(library), CHAOS_CLOCK=str(clock))  # for children, ours is linked already
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(Postgres()) if "postgres" in ways else None
        start = run_up(folder) if "deployed" in ways else run_server(folder, database)
        yield Host(stack.enter_context(start), clock, candidates, strategy, database)
        set_clock(clock, 0)


@contextlib.contextmanager
def run_server(folder: Path, database: Postgres | None) -> Iterator[str]:
    """A server that all runs share, as a team has one."""
    there = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url} if database else {}
    os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = "30"  # of the runs
    with Server(folder / "server", options=PRIVATE | there) as server:
        yield server.url


@contextlib.contextmanager
def run_up(folder: Path) -> Iterator[str]:
    """`synth up` in a process of its own."""
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


def nothing_runs(url: str, home: Path) -> bool:
    """Whether every flow run and task run has ended once the next run has started.

    A killed process can't say that it died, and a server marks no run by itself. Each run of Synth looks for
    dead runs when it starts, and `synth up` each minute. This looks once, as the next run would.
    """
    with connected({"PREFECT_API_URL": url, "PREFECT_HOME": str(home)}):
        print(f"flow runs left to the next run: {', '.join(unfinished()) or 'none'}", flush=True)
        if names := unfinished(task_runs=True):
            time.sleep(SILENCE.total_seconds())
            dead_runs.mark_dead_runs(SILENCE)
            names = unfinished(task_runs=True)
    print(f"runs that never ended: {', '.join(names) or 'none'}")
    return not names


def unfinished(*, task_runs: bool = False) -> list[str]:
    """Names of the flow runs, and of the task runs too if asked, that have no final state."""
    with get_client(sync_client=True) as client:
        runs: list[FlowRun | TaskRun] = [
            *client.read_flow_runs(flow_run_filter=dead_runs.UNFINISHED_FLOW_RUNS)
        ]
        if task_runs:
            runs += client.read_task_runs(task_run_filter=dead_runs.UNFINISHED_TASK_RUNS)
    return [run.name for run in runs]


if __name__ == "__main__":
    main()
