"""A whole run through the command line: no part of the key in anything it prints or writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from asking import KEYS
from loopback import Act, Loopback, Seen, answer, error

_PROGRAM = """```python
import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return torch.relu(self.linear(x))


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [[16], {}]
```
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_a_run_keeps_no_part_of_the_key(wire: str, tmp_path: Path) -> None:
    secret = KEYS[wire]

    def behave(seen: Seen) -> Act:
        if seen.number % 3 == 2:
            return error(wire, 500, f"cannot serve {secret[:10]} and {secret[-9:]}")
        return Act(body=answer(wire, _PROGRAM))

    out = tmp_path / "out"
    with Loopback(behave) as server:
        command = f"""generate --model-name {wire} --base-url {server.base_url(wire)} --seed 1
            --num-total-samples 6 --output-dir {out} --provider-retries 0"""
        run = subprocess.run(
            [str(Path(sys.executable).with_name("synth")), *command.split()],
            capture_output=True,
            env={**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
            cwd=Path(__file__).parents[2],
        )
        assert any(secret in value for value in server.seen[0].headers.values())
    assert run.returncode in {0, 3}, run.stderr.decode()[-2000:]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in written}
    assert "prefect.db" in names  # the server's database is among what is searched
    assert "calls.jsonl" in names
    everything = run.stdout + run.stderr + b"".join(path.read_bytes() for path in written)
    assert [part for part in _parts(secret) if part.encode() in everything] == []


def _parts(secret: str) -> set[str]:
    return {secret[i : i + 7] for i in range(len(secret) - 6)}
