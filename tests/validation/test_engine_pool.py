"""The long-lived workers that serve programs on a GPU, here on the CPU: the same code but for the device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from synth_core.errors import UsageError
from synth_core.settings import ValidationSettings
from synth_core.validation.engine import Engine

OWNER = """
import json, os, sys, time, select
from synth_core.records import Stage, Tier
from synth_core.validation import warm
from synth_core.validation.cuda import Pool
from synth_core.validation.evidence import Evidence
from synth_core.validation.sandbox import confine
from synth_core.validation.scheduler import Job

box = confine.probe(sys.argv[1], (), Tier.B)
warm.up()
ended = {}

def finished(job, evidence):
    data = [bytearray(os.pread(fd, os.fstat(fd).st_size, 0)) for fd, _ in evidence]
    read = [Evidence.read(d, seen) for d, (_, seen) in zip(data, evidence)]
    seen = evidence[-1][1]
    ended[job.id] = {
        "complete": all(e.complete for e in read), "error": read[0].values.get("error", {}).get("kinds"),
        "signal": seen.signal, "timed_out": seen.timed_out, "shared": job.shared,
        "worker": read[0].values.get("facts", {}) and 1,
    }

pool = Pool(box, 1, finished)
limits = confine.Limits(4.0, 1024)
for number, request in enumerate(json.load(sys.stdin)):
    pool.submit(Job(number, Stage.VALIDATE_EAGER, request, limits))
while not pool.idle:
    calls = pool.watched()
    ready, _, _ = select.select(list(calls), [], [], 0.05)
    for fd in ready:
        calls[fd]()
    pool.advance(time.monotonic())
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        continue
    if pid:
        assert pool.ended(pid, status)
pool.close()
print(json.dumps(ended))
"""


def request(forward: str) -> dict[str, Any]:
    text = textwrap.dedent(
        f"""
        import torch
        import torch.nn as nn

        class Mine(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(16, 5)

            def forward(self, x):
                {forward}

        def get_inputs():
            return [torch.randn(4, 16)]

        def get_init_inputs():
            return [[], {{}}]
        """
    )
    return {"source": text, "name": "Mine", "requested": [], "seed": 3, "device": "cpu", "skip": []}


def test_a_worker_serves_many_and_is_replaced_when_one_breaks_it(tmp_path: Path) -> None:
    good = request("return self.linear(x)")
    requests = [
        good,
        good,
        request("raise KeyError('mine')"),
        request("import ctypes; ctypes.string_at(0)"),
        good,
        request("import time; time.sleep(60)"),
        request("import os; os._exit(0)"),
        good,
    ]
    done = subprocess.run(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        input=json.dumps(requests), capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ended = {int(k): v for k, v in json.loads(done.stdout).items()}
    assert [ended[i]["complete"] for i in range(8)] == [True, True, True, False, True, False, False, True]
    assert ended[2]["error"][0] == "KeyError"
    assert ended[3]["signal"]
    assert ended[5]["timed_out"]
    assert [ended[i]["shared"] for i in (0, 1, 4, 7)] == [False, True, False, False]


def test_a_gpu_that_is_not_there_is_the_users_to_mend() -> None:
    with Engine(ValidationSettings(device="cuda"), workers=1) as engine:
        if os.path.exists("/dev/nvidiactl"):
            pytest.skip("there is a GPU here")
        with pytest.raises(UsageError, match="--device cpu"):
            engine.probe()
