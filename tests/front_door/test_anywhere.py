"""Where people call it: scripts, guarded or not, a running event loop, other threads, after an interrupt."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

ROOT = Path(__file__).parents[2]
LINES = """
program = synth_core.synthesize(["Linear", "GELU"], seed=1)
Path("x.py").write_text(program.source.replace(program.name, "x"))
print(synth_core.validate("x.py").accepted)
"""
HEAD = "from pathlib import Path\nimport synth_core\n"
GUARDED = f'{HEAD}if __name__ == "__main__":{textwrap.indent(LINES, "    ")}'
IN_A_LOOP = """
import asyncio, os, signal, threading
import synth_core

SLEEPS = '''import time
import torch
class Sleeps(torch.nn.Module):
    def forward(self, x):
        time.sleep(100)
        return x + 1
def get_inputs():
    return [torch.randn(2, 2)]
def get_init_inputs():
    return [[], {}]
'''
programs = [synth_core.synthesize(["Linear", "GELU"], seed=seed).source for seed in range(5)]
fresh = programs.pop()
settings = synth_core.ValidationSettings(skip_checks=("static",))

async def main():
    assert asyncio.get_running_loop().is_running()
    with synth_core.Validator(settings, workers=2) as validator:
        print("loop", validator.validate(programs[0]).accepted)
        away = await asyncio.to_thread(lambda: list(validator.validate_many(programs)))
        print("thread", [result.accepted for result in away])
        pairs = list(validator.as_completed(programs))
        print("completed", sorted(pairs, key=str) == sorted(zip(programs, away), key=str))

        threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            list(validator.validate_many([SLEEPS]))
        except KeyboardInterrupt:
            print("interrupted")
        print("after", validator.validate(fresh).accepted)

signal.signal(signal.SIGINT, signal.default_int_handler)  # as a notebook's kernel has it, beside its loop
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd)}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=400
    )


@pytest.mark.parametrize("script", [HEAD + LINES, GUARDED], ids=["unguarded", "guarded"])
def test_a_script(script: str, tmp_path: Path, warm_up: Callable[[Path], Path]) -> None:
    warm_up(tmp_path / "synth")
    (tmp_path / "script.py").write_text(script)
    done = run("script.py", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")
    line = run("-c", "import synth_core; print(synth_core.validate('x.py'))", cwd=tmp_path)
    assert line.stdout.startswith("path='x.py' accepted=True"), line.stderr


def test_a_running_loop_a_thread_and_an_interrupt(tmp_path: Path, warm_up: Callable[[Path], Path]) -> None:
    warm_up(tmp_path / "synth")
    done = run("-c", IN_A_LOOP, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "loop True",
        "thread [True, True, True, True]",
        "completed True",
        "interrupted",
        "after True",
    ], done.stderr
