"""Kills parts of runs at random, fills their disks, moves their clocks; then compares with a calm run.

    python benchmarks/chaos.py --kills 5                          # simulated validation: under three minutes
    python benchmarks/chaos.py --kills 100 --ways threads,private,dask,real
    python benchmarks/chaos.py --kills 10 --ways deployed         # by `synth up`, worker and deployment
    python benchmarks/chaos.py --kills 10 --ways postgres         # a server on PostgreSQL, which dies too

An LLM that answers by its prompt alone serves on the loopback and remembers what it was asked. One run goes
undisturbed. Further ones, with folders and caches of their own, are struck again and again (`VICTIMS` in
chaos_trial.py says by what) and go on by `synth resume`, or by the deployment's next run, whenever they
died. In the end each must have the programs and the ledger of the calm one; beyond what that asked, only
calls that were in flight when something died may have been asked again; and the server may know of no flow
run that still runs. Exits with 1 if not. A disk can be filled only where we may mount one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from chaos_llm import PROMPT, STRATEGY
from chaos_postgres import Postgres
from chaos_trial import WAYS, Host, Trial, set_clock

from flows.connection import connected
from flows.server import PRIVATE, Server

HERE = Path(__file__).parent
MOST_STRIKES_A_RUN = 8
SILENCE = timedelta(seconds=90)  # three heartbeats
ENDS_WITHIN = 240.0  # seconds: that, and a slow server
UP = """
import sys
from pathlib import Path
from flows.up import up
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
        sound &= nothing_runs(host.url)
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
    """As docs/deploying.md has a team's server, but for what is silent for how long."""
    there = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url} if database else {}
    triggers = {"PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "true"}
    os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = "30"  # of the runs
    with Server(folder / "server", options=PRIVATE | triggers | there) as server:
        with connected({"PREFECT_API_URL": server.url, "PREFECT_HOME": str(folder / "server")}):
            from flows import automations

            automations.create(SILENCE)
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


def nothing_runs(url: str) -> bool:
    """Whether every flow run has come to an end, or does so by itself in a while."""
    question = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}
    request = urllib.request.Request(
        f"{url}/flow_runs/filter", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + ENDS_WITHIN
    while True:
        with urllib.request.urlopen(request, timeout=60) as answer:
            names = [run["name"] for run in json.load(answer)]
        if not names or time.monotonic() > deadline:
            print(f"flow runs that never ended: {', '.join(names) or 'none'}")
            return not names
        time.sleep(5)


if __name__ == "__main__":
    main()
