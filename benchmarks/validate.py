"""Compares the engine with a plain worker pool on the same programs, and measures whole process trees.

    python benchmarks/validate.py [--programs 64] [--rounds 2] [--workers 2] [--folder DIR] [--only WAY]

Baseline: a ProcessPoolExecutor of long-lived warm workers. They `exec` a program and run it eagerly and with
torch.compile (default flags), without isolation, second run or comparison. Engine: both stages with all
checks, sandboxed, without cached verdicts. The two alternate. Both start with empty Inductor caches, and are
warm (torch imported, the ISA probed, headers precompiled) before the clock starts. CPU time is that of the
whole process tree, with compilers.

Programs: those of --folder, or programs of the constructive provider until --programs are accepted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from synth_core import extraction, prompting, strategies
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Candidate, Program, Specification
from synth_core.sampling import sample
from synth_core.settings import Settings, ValidationSettings
from synth_core.validation.engine import Engine


@dataclass
class Cost:
    wall: float = 0.0
    cpu: float = 0.0
    done: int = 0


def main() -> None:
    options = _options()
    if options.worker:
        return _baseline_process(options)
    with tempfile.TemporaryDirectory(prefix="validate-") as folder:
        programs = (
            _from_folder(options.folder) if options.folder else written(options.programs, options.workers)
        )
        for program in programs:
            (Path(folder) / f"{program.name}.py").write_text(program.source)
        print(
            f"{len(programs)} accepted programs, {options.workers} workers, {options.rounds} rounds",
            flush=True,
        )
        costs: dict[str, list[Cost]] = {"baseline": [], "engine": []}
        for _ in range(options.rounds):
            for way in costs if options.only is None else (options.only,):
                run_engine = way == "engine"
                cost = engine(programs, options.workers) if run_engine else baseline(folder, options.workers)
                costs[way].append(cost)
                print(
                    f"{way:9} {cost.done} programs  wall {cost.wall:7.1f} s  cpu {cost.cpu:7.1f} s"
                    f"  = {cost.cpu / cost.done:.2f} cpu-s a program",
                    flush=True,
                )
    if options.only is None:
        for unit in ("cpu", "wall"):
            ratios = [
                getattr(b, unit) / getattr(e, unit)
                for b, e in zip(costs["baseline"], costs["engine"], strict=True)
            ]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{unit}: baseline / engine = {statistics.median(ratios):.2f} ({each})")
    return None


def engine(programs: Sequence[Program], workers: int) -> Cost:
    """Both stages, with a warm engine. Its header is in the user's temporary folder, as in normal use."""
    cost = Cost()
    with Engine(ValidationSettings(), workers) as running:
        running.probe()
        with _measured(cost, lambda: _tree_cpu(os.getpid())):
            candidates = running.validate_eager([_candidate(i, p) for i, p in enumerate(programs)])
            candidates = running.validate_compile(candidates)
    cost.done = sum(candidate.alive for candidate in candidates)
    return cost


def baseline(folder: str, workers: int) -> Cost:
    """Run the baseline in its own process, so that it leaves no state in this one."""
    command = [sys.executable, __file__, "--worker", "--folder", folder, "--workers", str(workers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu, count = done.stdout.split()[-3:]
    return Cost(float(wall), float(cpu), int(count))


def _baseline_process(options: argparse.Namespace) -> None:
    cost = Cost()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        context = get_context("spawn")
        with ProcessPoolExecutor(options.workers, mp_context=context, initializer=_warm) as pool:
            list(pool.map(_pause, range(options.workers * 2)))  # every worker is up and warm
            with _measured(cost, lambda: _tree_cpu(os.getpid())):
                cost.done = sum(pool.map(_exec_and_compile, sorted(Path(options.folder).glob("*.py"))))
    print(cost.wall, cost.cpu, cost.done)


def _warm() -> None:
    import torch

    torch.set_num_threads(1)
    compiled: Any = torch.compile(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()))
    compiled(torch.randn(2, 4))


def _pause(_: int) -> None:
    time.sleep(1.0)


def _exec_and_compile(path: Path) -> bool:
    import torch

    torch._dynamo.reset()
    namespace: dict[str, Any] = {"__name__": path.stem}
    try:
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        args, kwargs = namespace["get_init_inputs"]()
        module = namespace[path.stem](*args, **kwargs)
        inputs = namespace["get_inputs"]()
        module(*inputs)
        compiled: Any = torch.compile(module)
        compiled(*inputs)
    except Exception as error:
        print(f"{path.stem}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    return True


def written(count: int, workers: int) -> list[Program]:
    """Accepted programs of the constructive provider, from a fixed seed."""
    settings = Settings(seed=2026, model_name="constructive").resolved()
    strategy = strategies.effective_strategies(settings)[0]
    accepted: list[Program] = []
    first = 0
    with Engine(settings.validation, workers) as running, Dispatcher(settings) as dispatcher:
        while len(accepted) < count:
            candidates = sample.sample(settings, strategy, range(first, first + count))
            first += count
            candidates = extraction.extract_programs(
                dispatcher.complete(prompting.render_prompts(candidates))
            )
            candidates = running.validate_compile(running.validate_eager(candidates))
            accepted += [c.program for c in candidates if c.alive and c.program]
    return accepted[:count]


def _from_folder(folder: str) -> list[Program]:
    return [Program.of(path.stem, path.read_text()) for path in sorted(Path(folder).glob("*.py"))]


def _candidate(index: int, program: Program) -> Candidate:
    specification = Specification(operators=(), strategy="", seed=0, provider="", prompt="", temperature=0.0)
    return Candidate(index=index, specification=specification, program=program)


@contextmanager
def _measured(cost: Cost, cpu: Callable[[], float]) -> Iterator[None]:
    wall, before = time.perf_counter(), cpu()
    yield
    cost.wall, cost.cpu = time.perf_counter() - wall, cpu() - before


def _tree_cpu(root: int) -> float:
    """CPU seconds of a process, its living descendants, and all their children that were waited for."""
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry))
            ticks[int(entry)] = sum(map(int, fields[11:15]))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        total += ticks.get(process, 0)
        waiting += parents.get(process, [])
    return total / os.sysconf("SC_CLK_TCK")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--programs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", default="")
    parser.add_argument("--only", choices=("engine", "baseline"))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
