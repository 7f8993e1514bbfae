"""Kills parts of a run at random moments, resumes, and shows that nothing is lost, doubled or paid for twice.

    python benchmarks/chaos.py --kills 5             # simulated validation: about two minutes
    python benchmarks/chaos.py --kills 20 --real     # the real engine, whose processes are killed as well

An LLM that answers by its prompt alone serves on the loopback and counts. One run goes undisturbed; further
ones, with folders and caches of their own, have a victim killed again and again (the flow process by SIGKILL,
SIGTERM or SIGINT, the Prefect server, the validation engine) and are resumed whenever they died. In the end
every folder must equal the first, and beyond what the undisturbed run asked, only calls that were in flight
at a kill may have been asked again. Exits with 1 if not.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LATENCY = 0.3
JUST_SENT = 1.0  # an answer this young may not have reached the client's disk when the client is killed
PROMPT = "{% block text %}Write a program. OPERATORS: {{ operators | join(', ') }}.{% endblock %}"
STRATEGY = """
p_value = 0.3
temperature = 0.5
num_core_ops_range = [1, 1]
num_compound_ops_range = [0, 0]
num_supporting_ops_range = [2, 4]
operators = ["Linear", "ReLU", "Tanh", "Sigmoid", "GELU", "SiLU", "ELU", "Softplus", "LayerNorm"]
prompt = "PROMPT_FILE"
"""
ARGUMENTS = {"Linear": "16, 16", "LayerNorm": "16"}
NAMES = {"server": "flows.server", "zygote": "validation.zygote"}
VICTIMS = ("flow SIGKILL", "flow SIGKILL", "flow SIGTERM", "flow SIGINT", "server SIGKILL", "zygote SIGKILL")

MOST_KILLS_A_RUN = 6
CALLS_AT_ONCE = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    parser.add_argument("--real", action="store_true", help="validate with the real engine")
    parser.add_argument("--work", metavar="JSON", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(**json.loads(options.work))
        return
    with tempfile.TemporaryDirectory(prefix="synth-chaos-") as folder:
        sys.exit(0 if chaos(options, Path(folder)) else 1)


def chaos(options: argparse.Namespace, folder: Path) -> bool:
    """Disturb one run after the other until there were enough kills; whether all came out right."""
    rng, victims, runs = random.Random(options.seed), Counter[str](), 0
    (folder / "prompt.j2").write_text(PROMPT)
    (folder / "chaos.toml").write_text(STRATEGY.replace("PROMPT_FILE", str(folder / "prompt.j2")))
    calm = Trial(folder / "calm", options)
    began = time.monotonic()
    calm.start(resume=False).wait()
    longest = (time.monotonic() - began) / 2
    print(f"undisturbed: {len(calm.programs())} programs, {calm.llm.asked.total()} calls", flush=True)
    sound = bool(calm.programs())
    while victims.total() < options.kills:
        runs += 1
        wild = Trial(folder / f"wild-{runs}", options)
        for victim in wild.disturb(rng, longest, min(MOST_KILLS_A_RUN, options.kills - victims.total())):
            victims[victim] += 1
        sound &= wild.equals(calm)
    kinds = ", ".join(f"{victim} {count}" for victim, count in sorted(victims.items()))
    print(f"{victims.total()} kills in {runs} runs ({kinds}): {'all equal' if sound else 'NOT ALL EQUAL'}")
    return sound


class Trial:
    """One run in a folder of its own, with an LLM of its own that counts."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.llm = Llm()
        self.calls_lost = 0
        folder.mkdir()

    def start(self, *, resume: bool) -> subprocess.Popen[bytes]:
        """The run as a process, as `synth generate` or `synth resume` would be."""
        order = {
            "out": str(self.folder / "out"),
            "cache": str(self.folder / "cache"),
            "strategy": str(self.folder.parent / "chaos.toml"),
            "url": self.llm.url,
            "candidates": self.options.candidates,
            "real": self.options.real,
            "resume": resume,
        }
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, __file__, "--work", json.dumps(order)]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def disturb(self, rng: random.Random, longest: float, kills: int) -> Iterator[str]:
        """Carry the run through with so many kills at most, resumed when it dies; yields each victim."""
        process = self.start(resume=False)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.5, longest) if kills else None)
            if process.poll() is None:
                victim = rng.choice(VICTIMS)
                if self._kill(victim, process):
                    kills -= 1
                    yield victim
            elif process.returncode == 0:
                return
            else:
                process = self.start(resume=bool(list(self.folder.glob("out/.synth/runs/*/run.json"))))

    def _kill(self, victim: str, process: subprocess.Popen[bytes]) -> bool:
        name, sign = victim.split()
        if name == "flow":
            process.send_signal(signal.Signals[sign])
            self.calls_lost += self.llm.unsure()
            process.wait()
            return True
        targets = [pid for pid in descendants(process.pid) if NAMES[name] in command_of(pid)]
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.Signals[sign])
        return bool(targets)

    def programs(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in (self.folder / "out").glob("*.py")}

    def equals(self, calm: Trial) -> bool:
        """Same folder; and nothing asked again but what was in flight at a kill."""
        expected, found = calm.programs(), self.programs()
        again = (self.llm.asked - calm.llm.asked).total()
        same, fair = expected == found, again <= self.calls_lost
        text = "equal" if same else f"NOT EQUAL: {sorted(expected.keys() ^ found.keys())}"
        calls = f"asked again {again} of {self.calls_lost} calls lost"
        print(f"{self.folder.name}: {len(found)} programs, {text}; {calls}")
        sys.stdout.flush()
        if not (same and fair):
            print((self.folder / "log").read_text()[-4000:])
        return same and fair


class Llm:
    """An OpenAI-compatible server whose answer depends on the prompt alone.

    asked: prompt digest -> requests.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._open = 0
        self._sent: list[float] = []
        llm = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                data = llm.answer(body["messages"][-1]["content"], body["model"])
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/v1"

    def answer(self, prompt: str, model: str) -> bytes:
        with self._lock:
            self.asked[hashlib.sha256(prompt.encode()).hexdigest()] += 1
            self._open += 1
        time.sleep(LATENCY)
        with self._lock:
            self._open -= 1
            self._sent.append(time.monotonic())
        message = {"role": "assistant", "content": write_program(prompt)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 10, "completion_tokens": 100, "total_tokens": 110}
        fields = {"id": "x", "object": "chat.completion", "created": 0, "model": model}
        return json.dumps({**fields, "choices": [choice], "usage": usage}).encode()

    def unsure(self) -> int:
        """Calls whose answer may be lost if the client dies now."""
        with self._lock:
            return self._open + sum(at > time.monotonic() - JUST_SENT for at in self._sent)


def write_program(prompt: str) -> str:
    """The operators in a row, as the prompt names them."""
    found = re.search(r"OPERATORS: ([^.]*)\.", prompt)
    assert found
    names = found[1].split(", ")
    layers = "\n".join(
        f"        self.layer{i} = nn.{name}({ARGUMENTS.get(name, '')})" for i, name in enumerate(names)
    )
    calls = "\n".join(f"        x = self.layer{i}(x)" for i in range(len(names)))
    return f"""Here it is.
```python
import torch
from torch import nn


class SynthModel_{"_".join(names)}(nn.Module):
    def __init__(self):
        super().__init__()
{layers}

    def forward(self, x):
{calls}
        return x


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[], {{}}]
```
"""


def work(out: str, cache: str, strategy: str, url: str, candidates: int, real: bool, resume: bool) -> None:
    """The process that is killed."""
    import flows.workshop
    from flows.run import run_synth
    from synth_core.settings import Settings

    if not real:
        flows.workshop.open_compute = simulated_validation  # type: ignore[assignment]
    settings = Settings.model_validate(
        {
            "output_dir": out,
            "cache_dir": cache,
            "strategy": strategy,
            "num_total_samples": candidates,
            "batch_size": 8,
            "seed": 7,
            "model_name": "local",
            "provider": {"base_url": url, "model_id": "chaos", "concurrency": CALLS_AT_ONCE},
        }
    )
    run_synth(settings, resume="" if resume else None)


@contextlib.contextmanager
def simulated_validation(settings: Any) -> Iterator[Any]:
    """A tenth of a second a program; one in eight is bad, by its text."""
    from synth_core.records import Category, Graph, Stage, Verdict

    def eager(candidates: Any, _: Any) -> Any:
        return [judge(candidate) if candidate.alive else candidate for candidate in candidates]

    def judge(candidate: Any) -> Any:
        time.sleep(0.1)
        if int(candidate.program.digest[0], 16) < 2:
            return candidate.judged(Verdict.fail(Stage.VALIDATE_EAGER, Category.SHAPE_ERROR, "simulated"))
        graph = Graph(nodes=(), operators=candidate.specification.operators)
        return candidate.judged(Verdict.ok(Stage.VALIDATE_EAGER), graph=graph)

    def compiled(candidates: Any, _: Any) -> Any:
        return [c.judged(Verdict.ok(Stage.VALIDATE_COMPILE)) if c.alive else c for c in candidates]

    yield {Stage.VALIDATE_EAGER: eager, Stage.VALIDATE_COMPILE: compiled}


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            child, rest = stat.read_text().split(" ", 1)[0], stat.read_text().rsplit(")", 1)[1].split()
            parents.setdefault(int(rest[1]), []).append(int(child))
    found, front = [], [pid]
    while front:
        front = [child for parent in front for child in parents.get(parent, [])]
        found += front
    return found


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


if __name__ == "__main__":
    main()
