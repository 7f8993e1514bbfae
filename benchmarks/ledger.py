"""The cost of storing and reporting N candidates: shards, filter, ledger, report, export.

    python benchmarks/ledger.py [N]

The programs are artificial (a thousand characters, a graph of 30 nodes, no torch), so only our own work
counts. Prints CPU milliseconds per candidate for each step, CPU seconds of report and export, bytes per
candidate on disk, and the peak memory.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synth_core.filtering import Filter
from synth_core.operators.catalog import CATALOG
from synth_core.program.naming import program_name
from synth_core.records import (
    Candidate,
    Category,
    Completion,
    Graph,
    Node,
    Outcome,
    Program,
    Specification,
    Stage,
    Telemetry,
    Tier,
    Usage,
    Verdict,
)
from synth_core.reporting import summarise, write_html
from synth_core.settings import Settings
from synth_core.store import (
    append_ledger,
    export_dataset,
    persist,
    plan_run,
    read_shard,
    save_run,
    write_shard,
)

BATCH = 256
NAMES = [operator.name for operator in CATALOG]
cpu: dict[str, float] = defaultdict(float)


@contextmanager
def clock(step: str) -> Iterator[None]:
    began = time.process_time()
    yield
    cpu[step] += time.process_time() - began


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def made_up(index: int) -> Candidate:
    rng = random.Random(index)
    operators = tuple(rng.choices(NAMES, k=rng.randint(4, 12)))
    name = program_name(operators)
    layers = "".join(f"        self.part{i} = nn.{op}({rng.random()})\n" for i, op in enumerate(operators))
    steps = "".join(f"        x{i + 1} = self.part{i}(x{i})\n" for i in range(len(operators)))
    source = (
        f"import torch\nfrom torch import nn\n\n\nclass {name}(nn.Module):\n    def __init__(self):\n"
        f"{layers}\n    def forward(self, x0):\n{steps}        return x{len(operators)}\n"
    )
    nodes = tuple(
        Node(name=f"n{i}", kind="call", target=f"torch.{op}", inputs=(f"n{i - 1}",), shape=(4, 16, 30))
        for i, op in enumerate(operators * 4, 1)
    )
    ends = Node(name="n0", kind="input"), Node(name="out", kind="output", inputs=(nodes[-1].name,))
    one = Candidate(
        index=index,
        specification=Specification(
            operators=operators, strategy="s", seed=index, provider="p", prompt="ordered", temperature=0.5
        ),
        completion=Completion(outcome=Outcome.OK, text=source, requested_model="m"),
        program=Program.of(name, source),
        graph=Graph(nodes=(ends[0], *nodes, ends[1]), operators=operators),
        telemetry=Telemetry(usage=Usage(output_tokens=900), calls=1, seconds={"validate-eager": 0.2}),
    )
    if rng.random() < 0.2:
        return one.judged(Verdict.fail(Stage.VALIDATE_EAGER, Category.SHAPE_ERROR, f"mat1 {index % 90}"))
    return one.judged(Verdict.ok(Stage.VALIDATE_COMPILE, tier=Tier.A, torch="2.13"))


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output_dir = Path(folder) / "out"
        run = save_run(plan_run(Settings(output_dir=str(output_dir), seed=1)))
        stage = Filter(output_dir, run.run_id)
        for batch, start in enumerate(range(0, count, BATCH)):
            candidates = [made_up(index) for index in range(start, min(count, start + BATCH))]
            with clock("shard, there and back"):
                shard = write_shard(Path(folder) / "shard.parquet", candidates, stage=Stage.VALIDATE_COMPILE)
                candidates = read_shard(shard.path)
            with clock("filter"):
                candidates = stage.apply(candidates)
            with clock("persist"):
                candidates = persist(candidates, run)
            with clock("ledger"):
                append_ledger(run, candidates, round=0, batch=batch)
        for step, seconds in cpu.items():
            print(f"{step:22} {1000 * seconds / count:8.2f} CPU ms a candidate")
        print(f"{'peak memory so far':22} {peak_mib():8.0f} MiB")
        for step, work in (
            ("report", lambda: write_html(summarise(output_dir), Path(folder) / "report.html")),
            ("export", lambda: export_dataset(output_dir, Path(folder) / "set.parquet")),
        ):
            with clock(step):
                work()
            print(f"{step:22} {cpu[step]:8.2f} CPU s, peak memory so far {peak_mib():.0f} MiB")
        report = summarise(output_dir)
        size = sum(path.stat().st_size for path in (output_dir / ".synth").rglob("*") if path.is_file())
        print(f"{'.synth':22} {size / count:8.0f} bytes a candidate")
        print(f"{report.accepted} of {report.attempted} kept; dropped by filter: {report.filtered}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
