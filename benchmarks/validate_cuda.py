"""On a machine with a GPU: full-size programs through the engine with device="cuda", programs a minute.

    python benchmarks/validate_cuda.py FOLDER [--workers 14] [--limit 100]

FOLDER holds program files (`Model` or any one nn.Module class, get_inputs, get_init_inputs), for instance
KernelBench/level2. Contract rules and the operators' names are off: these files never meant to keep them.
Both stages run: every program is vetted in a forked, confined CPU process, then checked and compiled in
long-lived, confined GPU workers. Needs torch and pydantic alone.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from pathlib import Path

from synth_core.records import Candidate, Program, Specification, Tier
from synth_core.settings import ValidationSettings
from synth_core.validation.engine import Engine


def main() -> None:
    options = _options()
    files = sorted(Path(options.folder).glob("*.py"))[: options.limit]
    candidates = [_candidate(i, path) for i, path in enumerate(files)]
    settings = ValidationSettings(
        device="cuda", timeout=120.0, memory_mb=65536, skip_checks=("static", "contract", "operators"),
        reject_rules=(),
    )  # fmt: skip
    with Engine(settings, options.workers) as engine:
        print(engine.probe(), flush=True)
        for name, stage in (("eager", engine.validate_eager), ("compile", engine.validate_compile)):
            started, entered = time.perf_counter(), sum(c.alive for c in candidates)
            candidates = stage(candidates)
            seconds = time.perf_counter() - started
            print(
                f"{name}: {entered} programs in {seconds:.1f} s = {entered * 60 / seconds:.0f} a minute",
                flush=True,
            )
    verdicts = [verdict for candidate in candidates for verdict in candidate.verdicts]
    shared = sum(verdict.tier is Tier.SHARED_WORKER for verdict in verdicts)
    print(
        f"{sum(c.alive for c in candidates)} accepted; {shared} of {len(verdicts)} verdicts by shared workers"
    )
    print(Counter(c.failure.category for c in candidates if c.failure))
    for candidate in candidates:
        if candidate.failure and candidate.program:
            print(candidate.program.name, candidate.failure.category, candidate.failure.detail[:160])


def _candidate(index: int, path: Path) -> Candidate:
    text = path.read_text()
    named = re.search(r"^class (\w+)\(", text, re.MULTILINE)
    specification = Specification(operators=(), strategy="", seed=0, provider="", prompt="", temperature=0.0)
    program = Program.of(named[1] if named else path.stem, text)
    return Candidate(index=index, specification=specification, program=program)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--limit", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    main()
