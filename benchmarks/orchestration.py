"""What orchestration costs: the eight real tasks and the real flow, around simulated or real stages.

    python benchmarks/orchestration.py cost --candidates 1000        # simulated stages alone
    python benchmarks/orchestration.py cost --candidates 200 --real  # constructive provider, real validation
    python benchmarks/orchestration.py overlap                       # an LLM of 2 s, validation of 1 s
    python benchmarks/orchestration.py dask                          # 1, 2 and 4 local workers

Figures are CPU seconds and ratios, because machines differ and are shared. Orchestration is what the flow's
process and the server spend, less what the stages themselves spend in the flow's process.
"""

from __future__ import annotations

import argparse
import os
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulation import Simulation

from flows.pipeline.progress import RunSummary
from flows.prefect_server.server import Server
from flows.run import run_synth
from synth_core.settings import Settings

# What a candidate's stages cost at least, to set simulated runs in proportion; `cost --real` measures it.
CPU_A_CANDIDATE = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    cost_options = commands.add_parser("cost")
    cost_options.add_argument("--candidates", type=int, default=1000)
    cost_options.add_argument("--real", action="store_true")
    overlap_options = commands.add_parser("overlap")
    overlap_options.add_argument("--candidates", type=int, default=400)
    commands.add_parser("dask").add_argument("--candidates", type=int, default=400)
    options = parser.parse_args()
    if options.command == "cost":
        cost(options.candidates, real=options.real)
    elif options.command == "overlap":
        overlap(options.candidates)
    else:
        spread_over_dask(options.candidates)


def cost(candidates: int, *, real: bool) -> None:
    """CPU of orchestration, and its share of the whole run's; memory; whether the history is whole."""
    simulation = Simulation()
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder) / "prefect") as server:
        before, before_children = _cpu(resource.RUSAGE_SELF), _cpu(resource.RUSAGE_CHILDREN)
        server_before = _cpu_of(server.pid)
        summary = _run(candidates, Path(folder) / "out", None if real else simulation)
        flow = _cpu(resource.RUSAGE_SELF) - before
        stages = sum(simulation.stage_cpu.values())
        children = _cpu(resource.RUSAGE_CHILDREN) - before_children
        serving = _cpu_of(server.pid) - server_before
        recorded, finished = _history(server.home / "prefect.db")
    orchestration = flow + serving - stages
    work = children if real else candidates * CPU_A_CANDIDATE
    print(f"candidates {candidates}, attempts {summary.attempted}, accepted {summary.accepted}")
    print(
        f"CPU s: flow process {flow:.1f} (stages {stages:.1f}), server {serving:.1f}, children {children:.1f}"
    )
    each = 1000 * orchestration / summary.attempted
    print(f"orchestration {orchestration:.1f} CPU s, {each:.1f} ms an attempt")
    kind = "measured" if real else f"{CPU_A_CANDIDATE} CPU s a candidate assumed"
    print(f"share of the run's CPU: {orchestration / (orchestration + stages + work):.2%} ({kind})")
    print(f"flow process peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    print(f"history: {recorded} task runs, {finished} of them finished")


def overlap(candidates: int) -> None:
    """Wall time with both stages slow, against the larger of the two alone."""
    alone = {
        "LLM of 2 s, 4 at once": Simulation(latency=2.0, concurrency=4),
        "validation of 1 s, 2 at once": Simulation(seconds=1.0, workers=2),
    }
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder) / "prefect"):
        walls = {}
        for name, simulation in alone.items():
            walls[name] = _run(candidates, Path(folder) / name, simulation).wall_s
            print(f"{name} alone: {walls[name]:.1f} s")
        both = Simulation(latency=2.0, concurrency=4, seconds=1.0, workers=2)
        wall = _run(candidates, Path(folder) / "both", both).wall_s
    print(f"both: {wall:.1f} s, {wall / max(walls.values()) - 1:+.1%} against the larger alone")


def spread_over_dask(candidates: int) -> None:
    """Wall time on 1, 2 and 4 local workers, which wait half a second a candidate."""
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder) / "prefect"):
        walls = {}
        for workers in (1, 2, 4):
            options = {"runner": "dask", "num_worker": workers}
            walls[workers] = _run(candidates, Path(folder) / f"w{workers}", Simulation(), **options).wall_s
            efficiency = walls[1] / (workers * walls[workers])
            print(f"{workers} workers: {walls[workers]:.1f} s, efficiency {efficiency:.0%}")


def _run(candidates: int, folder: Path, simulation: Simulation | None, **more: Any) -> RunSummary:
    settings = Settings(num_total_samples=candidates, seed=7, max_retries=0, output_dir=str(folder), **more)
    return run_synth(settings, open_workshop=simulation.open if simulation else None)


@contextmanager
def _server(home: Path) -> Iterator[Server]:
    with Server(home) as server:
        os.environ["PREFECT_API_URL"], os.environ["PREFECT_HOME"] = server.url, str(home)
        while not (home / "ready").exists():
            time.sleep(0.1)
        yield server


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _history(database: Path) -> tuple[int, int]:
    """Task runs in the server's database once it has stopped growing, and those that are completed."""
    query = "select count(*), sum(state_type = 'COMPLETED') from task_run"
    counts: tuple[int, int] | None = None
    while True:
        with sqlite3.connect(database) as connection:
            now = connection.execute(query).fetchone()
        if now == counts:
            return now[0], now[1] or 0
        counts = now
        time.sleep(3)


if __name__ == "__main__":
    main()
