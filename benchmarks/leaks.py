"""Looks for leaks of memory, processes, files and mounts, with thousands of programs through one engine.

    python benchmarks/leaks.py [--programs 5000] [--workers 2] [--stage eager|both]

Prints the engine's memory (this process, supervisors and provers) after a tenth of the programs and at the
end. Exits with 1 if it grew by 5% or more, or if a process, a file or a mount is left.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from synth_core.records import Candidate, Program, Specification
from synth_core.settings import ValidationSettings
from synth_core.validation.engine import Engine

BATCH = 50
SOURCE = """import torch
import torch.nn as nn


class SynthModel_Linear_ReLU(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, 4)

    def forward(self, x):
        return torch.relu(self.linear(x) + {shift})


def get_inputs():
    return [torch.randn(8, 16)]


def get_init_inputs():
    return [[16], {{}}]
"""


def main() -> None:
    options = _options()
    before = _traces()
    grown = []
    with Engine(ValidationSettings(), options.workers) as engine:
        engine.probe()
        for first in range(0, options.programs, BATCH):
            batch = [_candidate(i) for i in range(first, min(first + BATCH, options.programs))]
            judged = engine.validate_eager(batch)
            if options.stage == "both":
                judged = engine.validate_compile(judged)
            assert all(candidate.alive for candidate in judged), [c.failure for c in judged if not c.alive][
                :1
            ]
            grown.append(_memory_kb())
    early, late = grown[len(grown) // 10], grown[-1]
    left = _traces() - before
    print(
        f"{options.programs} programs: {early / 1024:.0f} MiB after a tenth, {late / 1024:.0f} MiB at the end"
    )
    print(f"growth {late / early - 1:+.1%}; left behind: {sorted(left) or 'nothing'}")
    raise SystemExit(1 if late >= 1.05 * early or left else 0)


def _candidate(index: int) -> Candidate:
    specification = Specification(
        operators=("Linear", "ReLU"), strategy="", seed=0, provider="", prompt="", temperature=0.0
    )
    program = Program.of("SynthModel_Linear_ReLU", SOURCE.format(shift=f"1.{index:06d}"))
    return Candidate(index=index, specification=specification, program=program)


def _memory_kb() -> int:
    """Private memory of this process and its descendants in kB. Call it between two batches."""
    return sum(_anonymous_kb(process) for process in (os.getpid(), *_below(os.getpid())))


def _anonymous_kb(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("RssAnon:")[2].split()[0]) if "RssAnon:" in status else 0


def _below(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _traces() -> set[str]:
    """Our current processes, scratch folders and mounts."""
    folders = {str(path) for path in Path(tempfile.gettempdir()).glob(f"synth-{os.getuid()}-*")}
    mounts = set(Path("/proc/self/mounts").read_text().splitlines())
    return {f"process {process}" for process in _below(os.getpid())} | folders | mounts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--programs", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stage", choices=("eager", "both"), default="eager")
    return parser.parse_args()


if __name__ == "__main__":
    main()
