"""Measures programs per minute on a machine with a GPU: full-size programs, engine with device="cuda".

    python benchmarks/validate_cuda.py FOLDER [--workers 16] [--batch 10] [--details FILE] [--smoke]

FOLDER contains program files (`Model` or any single nn.Module class, get_inputs, get_init_inputs), for
instance KernelBench/level2. Contract rules and operator names are not checked, because these files were not
written for them. Both stages run: a forked, confined CPU process captures the graph of a program and runs the
program once at full size; long-lived provers check and compile the graph on the GPU. A set of small programs
starts the provers, and this is timed separately. Batches overlap as in a flow: one is in its eager stage
while another compiles. `--batch 0` sends all programs through one stage after the other, and times each.
Needs only torch and pydantic.

--smoke first runs a few small programs with known results. In a minute, it shows whether workers start in the
sandbox, compile, distinguish errors and are replaced. If no worker starts, it tries weaker sandboxes, to find
the part that prevents the start. --details is a file for one line of JSON per verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from synth_core.errors import SynthError
from synth_core.records import Candidate, Program, Specification, Tier
from synth_core.settings import ValidationSettings
from synth_core.validation.engine import Engine

SMOKE = {
    "sound": ("return torch.relu(self.linear(x)) + x.mean()", "accepted"),
    "norm": ("return torch.softmax(self.linear(x).std(1, keepdim=True) * x, -1)", "accepted"),
    "random": ("return self.linear(x) + torch.rand_like(x[:, :1])", "NUMERICAL_MISMATCH"),
    "raises": ("raise KeyError('mine')", "EXCEPTION"),
    "shapes": ("return self.linear(x @ x)", "SHAPE_ERROR"),
    "constant": ("return torch.zeros_like(self.linear(x)) + 1", "DEGENERATE"),
    "reads values": ("return self.linear(x) * x.sum().item()", "accepted or GRAPH_BREAK"),
    "too large": ("return self.linear(x) + torch.zeros(2**36, device=x.device)[:1]", "OUT_OF_MEMORY"),
    "hangs": ("while True: pass\n        return self.linear(x)", "TIMEOUT"),
    "dies": ("__import__('ctypes').string_at(0)\n        return self.linear(x)", "CRASH"),
    "out of range": ("return self.linear(x)[torch.full((4,), 10**6, device=x.device)]", "SHAPE_ERROR"),
    "sound afterwards": ("return torch.tanh(self.linear(x)) * x", "accepted"),
}
"""Name -> (forward, expected result)."""


def main() -> None:
    options = _options()
    settings = ValidationSettings(
        device="cuda", timeout=120.0, memory_mb=65536, skip_checks=("static", "contract", "operators")
    )  # fmt: skip
    tier = _smoke(settings, options) if options.smoke else Tier.A
    files = sorted(Path(options.folder).glob("*.py"))[: options.limit]
    candidates = [_candidate(i, path.stem, path.read_text()) for i, path in enumerate(files)]
    allowed = settings.model_copy(update={"allow_unsandboxed": tier is Tier.C})
    with Engine(allowed, options.workers, strongest=tier) as engine:
        started = time.perf_counter()
        print(engine.probe(), f"ready after {time.perf_counter() - started:.1f} s", flush=True)
        print("starting all workers, with small programs:", flush=True)
        small = [_small(f"return torch.relu(self.linear(x)) * {i + 1}.5") for i in range(options.workers)]
        _through(engine, [_candidate(i, "small", text) for i, text in enumerate(small)])
        print("the folder:", flush=True)
        done = (
            _overlapping(engine, candidates, options.batch) if options.batch else _through(engine, candidates)
        )
    print(f"{sum(c.alive for c in done)} accepted")
    _tell(done, options.details)


def _through(engine: Engine, candidates: list[Candidate]) -> list[Candidate]:
    whole = 0.0
    for name, stage in (("eager", engine.validate_eager), ("compile", engine.validate_compile)):
        started, entered = time.perf_counter(), sum(c.alive for c in candidates)
        candidates = stage(candidates)
        seconds = time.perf_counter() - started
        whole += seconds
        rate = entered * 60 / seconds
        print(f"{name}: {entered} programs in {seconds:.1f} s = {rate:.0f} a minute", flush=True)
    print(f"both stages: {len(candidates) * 60 / whole:.0f} programs a minute", flush=True)
    return candidates


def _overlapping(engine: Engine, candidates: list[Candidate], size: int) -> list[Candidate]:
    """Send batches through both stages at the same time, as a flow does."""
    batches = [candidates[i : i + size] for i in range(0, len(candidates), size)]
    started = time.perf_counter()
    with ThreadPoolExecutor(len(batches)) as pool:
        done = pool.map(lambda batch: engine.validate_compile(engine.validate_eager(batch)), batches)
        candidates = [candidate for batch in done for candidate in batch]
    seconds = time.perf_counter() - started
    print(f"both stages: {len(candidates)} programs in {seconds:.1f} s = ", end="")
    print(f"{len(candidates) * 60 / seconds:.0f} a minute", flush=True)
    return candidates


def _smoke(settings: ValidationSettings, options: argparse.Namespace) -> Tier:
    """Run the small programs in the strongest sandbox in which workers start. Returns its tier."""
    settings = settings.model_copy(update={"timeout": 20.0})
    texts = [_small(forward) for forward, _ in SMOKE.values()]
    candidates = [_candidate(i, name, text) for i, (name, text) in enumerate(zip(SMOKE, texts, strict=True))]
    for tier in (Tier.A, Tier.B, Tier.C):
        allowed = settings.model_copy(update={"allow_unsandboxed": tier is Tier.C})
        started = time.perf_counter()
        try:
            with Engine(allowed, 3, strongest=tier) as engine:
                facts = engine.probe()
                print(f"tier {tier}: ready after {time.perf_counter() - started:.1f} s {facts}", flush=True)
                done = _through(engine, candidates)
        except SynthError as error:
            print(f"tier {tier}: {error}", flush=True)
            continue
        for (name, (_, wanted)), one in zip(SMOKE.items(), done, strict=True):
            got = str(one.failure.category) if one.failure else "accepted"
            print(f"  {'ok ' if got in wanted.split(' or ') else 'BAD'} {name}: {got}, wanted {wanted}")
        _tell(done, options.details)
        return tier
    raise SystemExit("no worker starts in any sandbox")


def _small(forward: str) -> str:
    return f"""import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x):
        {forward}


def get_inputs():
    return [torch.randn(32, 64)]


def get_init_inputs():
    return [[], {{}}]
"""


def _tell(done: list[Candidate], details: str) -> None:
    """Print one line per failure. Write every verdict in full to the file."""
    print(Counter(str(c.failure.category) for c in done if c.failure))
    for one in done:
        if one.failure:
            failure, name = one.failure, one.specification.strategy
            print(f"  {name} {failure.category} [{failure.check}] {failure.detail[:200]}")
    if not details:
        return
    with open(details, "a") as file:
        for one in done:
            for verdict in one.verdicts:
                about = {"program": one.specification.strategy, "seconds": one.telemetry.seconds}
                file.write(json.dumps(about | verdict.model_dump(mode="json")) + "\n")


def _candidate(index: int, name: str, text: str) -> Candidate:
    """A candidate for a file. `strategy` holds the file's name, because the engine renames the class."""
    named = re.search(r"^class (\w+)\(", text, re.MULTILINE)
    specification = Specification(
        operators=(), strategy=name, seed=0, provider="", prompt="", temperature=0.0
    )
    return Candidate(
        index=index, specification=specification, program=Program.of(named[1] if named else "Model", text)
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--details", default="")
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
