"""Run attack programs one by one, each between two innocent ones, with the static gate and without it.

    python tests/helpers/attacks.py FOLDER [NAME…]

The head of a file says what must come of it: `# must: rejected` (or `# verdict: rejected`), `# must: clean:
says no TEXT`, `# must: neighbours judged within the time (bound SECONDS)`; `# name:` what the class is
called. `HOSTDIR` and `@ANYTHING@` in a program stand for paths of this host. Whatever the head says, both
neighbours must be judged, every verdict must be printable, and no supervisor may take a second of CPU or 500
MB.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synth_core.program.naming import operators_named
from synth_core.records import Candidate, Program, Specification
from synth_core.settings import ValidationSettings
from synth_core.validation.engine import Engine

CPU_SECONDS = 1.0
MEGABYTES = 500
TIMEOUT = 12.0
SECRET_SIZE = 48_611
NEIGHBOUR = """import torch
import torch.nn as nn

# SEKRIT-NEIGHBOUR-{mark}


class SynthModel_Linear_Tanh(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, {width})

    def forward(self, x):
        return torch.tanh(self.linear(x))


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {{}}]
"""


@dataclass
class Supervisor:
    """One zygote, and what it has taken since it was last asked."""

    pid: int
    cpu: float = 0.0

    def start(self) -> None:
        self.cpu = self._cpu()
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # the peak begins anew

    def taken(self) -> tuple[float, float]:
        """CPU seconds, and the peak of its memory in MB; of a dead one nothing is known."""
        try:
            peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
            return self._cpu() - self.cpu, int(peak[1]) / 1024 if peak else 0.0
        except OSError:
            return 0.0, 0.0

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def supervisors(owner: int) -> list[Supervisor]:
    """The zygotes of a process, and not what they have forked."""
    found, waiting = [], [owner]
    while waiting:
        parent = waiting.pop()
        for child in Path(f"/proc/{parent}/task").glob("*/children"):
            for pid in map(int, child.read_text().split()):
                if b"supervisor.zygote" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    continue
                if os.listdir(f"/proc/{pid}/fd"):
                    found.append(Supervisor(pid))
                else:  # the thin parent of a pid namespace
                    waiting.append(pid)
    return found


def header(text: str, *keys: str) -> str:
    found = [match[1] for key in keys if (match := re.search(rf"^# {key}: (.*)$", text, re.MULTILINE))]
    return found[0] if found else ""


def candidate(index: int, text: str, name: str) -> Candidate:
    operators = operators_named(name) or ("Linear",)
    specification = Specification(
        operators=operators, strategy="", seed=0, provider="", prompt="", temperature=0.0
    )
    return Candidate(index=index, specification=specification, program=Program.of(name, text))


def neighbour(width: int) -> str:
    return NEIGHBOUR.format(mark=uuid.uuid4().hex, width=width)


def run(engine: Engine, text: str, host: Path) -> Iterator[str]:
    """What is wrong with the outcome of one attack, one line each; the first line says what came of it."""
    wanted = header(text, "must", "verdict")
    name = header(text, "name") or (re.search(r"class (SynthModel\w*)", text) or ["", "SynthModel_Linear"])[1]
    text = re.sub(r"@[A-Z_]+@", str(host / "nothing"), text.replace("HOSTDIR", str(host)))
    batch = [neighbour(8), text, neighbour(24)]
    names = ["SynthModel_Linear_Tanh", name, "SynthModel_Linear_Tanh"]
    watched = supervisors(os.getpid())
    for one in watched:
        one.start()
    began = time.monotonic()
    done = engine.validate_compile(
        engine.validate_eager([candidate(*c) for c in zip(range(3), batch, names, strict=True)])
    )
    seconds = time.monotonic() - began
    taken = [one.taken() for one in watched]
    first, attack, last = done
    failure = attack.failure
    cpu, megabytes = max(t[0] for t in taken), max(t[1] for t in taken)
    verdict = f"{failure.category} ({failure.check}) {failure.detail[:90]}" if failure else "accepted"
    yield f"{seconds:5.1f} s, supervisor {cpu:.2f} cpu-s {megabytes:.0f} MB: {verdict}"
    said = "".join(verdict.model_dump_json() for verdict in attack.verdicts)
    if wanted.startswith("rejected") and attack.alive:
        yield "it was accepted"
    if (hidden := re.search(r"no \"?([\w-]+)\"?$", wanted)) and hidden[1] in said:
        yield f"it says {hidden[1]}"
    if str(SECRET_SIZE) in said:
        yield "it tells the size of a file of the host"
    if any(not verdict.detail.isprintable() for verdict in attack.verdicts):
        yield "its verdict is not printable"
    yield from (f"a neighbour: {one.failure.detail}" for one in (first, last) if one.failure)
    if (bound := re.search(r"bound (\d+)", wanted)) and seconds > int(bound[1]):
        yield f"it took {seconds:.0f} s"
    if cpu > CPU_SECONDS:
        yield f"a supervisor took {cpu:.2f} CPU seconds"
    if megabytes > MEGABYTES:
        yield f"a supervisor took {megabytes:.0f} MB"


def main(folder: str, *names: str) -> int:
    files = [path for path in sorted(Path(folder).glob("*.py")) if not names or path.stem in names]
    wrong = 0
    with tempfile.TemporaryDirectory() as host:
        (Path(host) / "secret").write_text("s" * SECRET_SIZE)
        for gate, skipped in (("gate", ()), ("no gate", ("static",))):
            settings = ValidationSettings(timeout=TIMEOUT, memory_mb=1024, skip_checks=skipped)
            with Engine(settings, 2) as engine:
                engine.validate_compile(
                    engine.validate_eager([candidate(0, neighbour(5), "SynthModel_Linear_Tanh")])
                )
                for file in files:
                    said, *problems = run(engine, file.read_text(), Path(host))
                    wrong += bool(problems)
                    print(
                        f"{'WRONG' if problems else 'right'} {file.stem} ({gate}): {said}",
                        *problems,
                        sep="\n      ",
                        flush=True,
                    )
    print(f"{wrong} of {2 * len(files)} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
