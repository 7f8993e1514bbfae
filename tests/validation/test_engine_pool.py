"""The long-lived workers that serve programs on a GPU, here on the CPU: the same code but for the device."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from probing import program, request

from synth_core.errors import UsageError
from synth_core.settings import ValidationSettings
from synth_core.validation.child import WarmChild
from synth_core.validation.engine import Engine
from synth_core.validation.evidence import Evidence, EvidenceWriter, Observation
from synth_core.validation.inside.loading import sampled
from synth_core.validation.inside.vetting import memory_mb, vet

OWNER = """
import json, os, sys, time, select
from synth_core.records import Stage, Tier
from synth_core.validation.supervisor import cuda
from synth_core.validation.inside import warm
from synth_core.validation.evidence import Evidence
from synth_core.validation.sandbox import confine
from synth_core.validation.supervisor.job import Job

box = confine.probe(sys.argv[1], (), Tier.B)
warm.up("cuda")
cuda.PROGRAMS_EACH = 3
asked = json.load(sys.stdin)
ended, beside = {}, {}

def finished(job, evidence):
    data = [bytearray(os.pread(fd, os.fstat(fd).st_size, 0)) for fd, _ in evidence]
    read = [Evidence.read(d, seen) for d, (_, seen) in zip(data, evidence)]
    seen = evidence[-1][1]
    outputs = [t.numel() for e in read for name, t in e.tensors.items() if name in ("output.0", "compiled.0")]
    ended[job.id] = {
        "complete": all(e.complete for e in read), "error": read[0].values.get("error", {}).get("kinds"),
        "signal": seen.signal, "timed_out": seen.timed_out, "shared": job.shared,
        "outputs": outputs, "beside": beside[job.id],
    }

pool = cuda.GpuWorkers(box, asked["workers"], finished, "cpu")
pool.prove()
hand = pool._hand

def watched_hand(worker, job):
    beside[job.id] = [w.job.id for w in pool._workers.values() if w.job]
    hand(worker, job)

pool._hand = watched_hand
for number, one in enumerate(asked["jobs"]):
    job = Job(number, Stage(one["stage"]), one["request"], confine.Limits(one["seconds"], 1024))
    for key in ("alone", "whole", "memory_mb", "later_mb"):
        setattr(job, key, one[key])
    pool.submit(job)
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


def serve(folder: Path, jobs: list[dict[str, Any]], workers: int) -> dict[int, Any]:
    """What became of each job in a pool of workers."""
    defaults = {
        "stage": "validate-eager",
        "seconds": 60.0,
        "alone": False,
        "whole": False,
        "memory_mb": 1,
        "later_mb": 1,
    }
    done = subprocess.run(
        [sys.executable, "-c", OWNER, str(folder)],
        input=json.dumps({"workers": workers, "jobs": [defaults | job for job in jobs]}),
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {int(number): ended for number, ended in json.loads(done.stdout).items()}


def job(forward: str, **more: Any) -> dict[str, Any]:
    return {"request": request(program(forward, "self.linear = nn.Linear(6, 5)"), device="cpu"), **more}


def test_a_worker_serves_many_and_is_replaced_when_one_breaks_it(tmp_path: Path) -> None:
    good = job("return self.linear(x)")
    jobs = [
        good,
        good,
        job("raise KeyError('mine')"),
        good,  # in a new worker: the old one has served as many as it may
        job("import ctypes; ctypes.string_at(0)"),
        good,
        job("import time; time.sleep(60)", seconds=2.0),
        job("import os; os._exit(0)"),
        good,
        job("return self.linear(x).repeat(1024, 512)"),
    ]
    ended = serve(tmp_path, jobs, workers=1)
    assert [ended[i]["complete"] for i in range(10)] == [True] * 4 + [False, True, False, False, True, True]
    assert ended[2]["error"][0] == "KeyError"
    assert ended[4]["signal"]
    assert ended[6]["timed_out"]
    assert [i for i in range(10) if ended[i]["shared"]] == [1, 2, 4, 6, 9]
    assert ended[9]["outputs"] == [4096 * 2560 // 64]
    assert not list(tmp_path.glob("worker-*/*"))  # what a dead worker cached, no other shall read


def test_a_fresh_worker_and_a_gpu_to_itself(tmp_path: Path) -> None:
    slow = job("import time; time.sleep(0.2); return self.linear(x)")
    ended = serve(
        tmp_path, [slow, slow, slow, slow, {**slow, "whole": True}, {**slow, "alone": True}], workers=2
    )
    assert all(one["complete"] for one in ended.values())
    assert ended[4]["beside"] == []
    assert all(4 not in one["beside"] for one in ended.values())
    assert not ended[5]["shared"]
    assert any(one["beside"] for one in ended.values())


def test_no_more_run_at_once_than_there_is_memory_for(tmp_path: Path) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    slow = job("import time; time.sleep(0.5); return self.linear(x)")
    large = {**slow, "memory_mb": 0.6 * whole}
    forged = {**slow, "memory_mb": float("nan")}  # a program may have written it
    ended = serve(tmp_path, [large, large, slow, slow, forged], workers=2)
    assert all(one["complete"] for one in ended.values())
    assert not {0, 1} & {*ended[0]["beside"], *ended[1]["beside"]}
    assert any(one["beside"] for one in ended.values())


def test_memory_is_promised_anew_when_only_the_compiled_run_is_left(tmp_path: Path) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    source = program("return self.linear(x)", "self.linear = nn.Linear(6, 5)")
    slow = {
        "request": request(f"import time\ntime.sleep(1.5)\n{source}", device="cpu")
    }  # in each of its runs
    large = {**slow, "memory_mb": 0.6 * whole}
    warm = [slow, slow]  # both workers are there
    ended = serve(tmp_path, [*warm, {**large, "stage": "validate-compile"}, large], workers=2)
    assert 2 in ended[3]["beside"]
    ended = serve(
        tmp_path, [*warm, {**large, "stage": "validate-compile", "later_mb": 0.6 * whole}, large], 2
    )
    assert 2 not in ended[3]["beside"]


def test_a_fresh_worker_is_made_beside_those_that_serve(tmp_path: Path) -> None:
    slow = job("import time; time.sleep(0.2); return self.linear(x)")
    ended = serve(tmp_path, [slow, slow, {**slow, "alone": True}, slow, slow], workers=1)
    assert not ended[2]["shared"]
    assert all(one["complete"] and not one["beside"] for one in ended.values())


def test_shapes_tell_what_memory_a_program_needs() -> None:
    source = program(
        "return torch.relu(self.a(x))", "self.a = nn.Linear(1024, 2048)", "torch.randn(2048, 1024)"
    )
    sizes = vetted(source, "meta").json("sizes")
    assert (sizes["inputs"], sizes["step"]) == (8.0, 8.0 + sizes["state"] + 16.0)
    assert sizes["state"] == 2048 * 1025 * 4 / 2**20
    assert sizes == vetted(source, "cpu").json("sizes")
    eager, (compiles, compiled) = memory_mb(sizes, compiles=False)[0], memory_mb(sizes, compiles=True)
    assert eager > compiles > compiled > sum(sizes.values())


@pytest.mark.parametrize(
    ("forward", "inputs", "on"),
    [
        ("return x * x.shape[0]", "torch.randn(2**20, 2**20)", ["meta"]),  # a terabyte is a shape like others
        ("return x + torch.randn_like(x) + torch.arange(6)", "torch.randn(4, 6)", ["meta"]),
        ("return nn.functional.one_hot(x, 9) * 1.0", "torch.randint(0, 9, (4,))", ["meta"]),
        ("return x * x.max().item()", "torch.randn(4, 6)", ["meta", "cpu"]),
        ("return x[x > 0]", "torch.randn(4, 6)", ["meta", "cpu"]),
        ("return x * 2", "torch.randn(4, 6, generator=torch.Generator().manual_seed(1))", ["meta"]),
        ("return x * 2", "torch.tensor([1.0, 2.0])", ["meta"]),
    ],
)
def test_vetting_runs_any_sound_program_to_its_end(forward: str, inputs: str, on: list[str]) -> None:
    tried = []
    for device in ("meta", "cpu"):
        tried.append(device)
        if "error" not in vetted(program(forward, inputs=inputs), device).values:
            break
    assert tried == on
    assert "error" not in vetted(program(forward, inputs=inputs), on[-1]).values


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    ("forward", "kind"),
    [("raise KeyError(1)", "KeyError"), ("return 3", "BrokenContract"), ("return x @ x", "RuntimeError")],
)
def test_vetting_says_what_a_program_raises(device: str, forward: str, kind: str) -> None:
    assert kind in vetted(program(forward), device).values["error"]["kinds"]


def vetted(source: str, device: str) -> Evidence:
    stream = io.BytesIO()
    writer = EvidenceWriter(stream)
    vet(request(source), device, writer)
    writer.end()
    return Evidence.read(bytearray(stream.getvalue()), Observation(exit_code=0))


def test_a_sample_keeps_axes_and_shows_what_is_not_finite() -> None:
    tensor = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    assert sampled(tensor, None).equal(tensor)
    assert sampled(tensor, 1000).shape == (2, 3, 8, 16)
    tensor[1, 2, 63, 63] = torch.inf
    assert not bool(sampled(tensor, 1000).isfinite().all())


@pytest.mark.slow
def test_the_whole_way_to_a_worker_and_back(tmp_path: Path) -> None:
    """Vetted in a fork, run in a shared worker, judged, and a sample judged again in a fresh one."""
    forwards = {
        "sound": "return torch.relu(self.linear(x))",
        "reads values": "return torch.relu(self.linear(x)) * (2.0 if x.sum().item() > 1e9 else 0.5)",
        "raises": "raise KeyError('mine')",
        "dies": "import ctypes; ctypes.string_at(0)",
        "too large": "if x.is_meta: return x\nraise torch.OutOfMemoryError('CUDA out of memory')",
        "constant": "return torch.relu(self.linear(x)) * 0 + 1",
    }
    configuration = {
        "cache": str(tmp_path), "workers": 1, "timeout": 60.0, "memory_mb": 2048,
        "device": "cuda",
    }  # fmt: skip
    child = WarmChild("tests.helpers.gpuless", configuration)
    try:
        asked = {
            name: child.submit({"stage": "validate-eager", "request": on_gpu(forward), "rejudge": True})
            for name, forward in forwards.items()
        }
        answers = {name: answer.result() for name, answer in asked.items()}
        again = {"stage": "validate-compile", "request": on_gpu(forwards["sound"]), "rejudge": True}
        compiled = child.submit(again).result()
    finally:
        child.close()
    judged = {name: answer["judgement"] for name, answer in answers.items()}
    assert judged["sound"]["passed"], judged["sound"]
    assert judged["reads values"]["passed"], judged["reads values"]
    assert compiled["judgement"]["passed"], compiled
    assert answers["sound"]["alone"] or answers["reads values"]["alone"]  # the first ran in a fresh worker
    assert {name: judged[name]["category"] for name in ("raises", "dies", "too large", "constant")} == {
        "raises": "EXCEPTION", "dies": "CRASH", "too large": "OUT_OF_MEMORY", "constant": "DEGENERATE",
    }  # fmt: skip
    assert [name for name, one in judged.items() if one.get("tier") == "shared_worker"] == [
        "sound", "reads values", "too large", "constant",
    ]  # fmt: skip


def on_gpu(forward: str) -> dict[str, Any]:
    return {**job(forward)["request"], "device": "cuda", "skip": ["contract"]}


def test_a_gpu_that_is_not_there_is_the_users_to_mend() -> None:
    with Engine(ValidationSettings(device="cuda"), workers=1) as engine:
        if os.path.exists("/dev/nvidiactl"):
            pytest.skip("there is a GPU here")
        with pytest.raises(UsageError, match="--device cpu"):
            engine.probe()


UNTOUCHED = """
import io, sys, torch

def touched(*_):
    raise SystemExit("CUDA was initialised: no fork of this process could use it")

torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda._lazy_init = torch.cuda.random._lazy_init = touched
from synth_core.validation.inside import warm
from synth_core.validation.evidence import EvidenceWriter
from synth_core.validation.inside.vetting import vet
warm.up(sys.argv[1])
asked = {"source": sys.stdin.read(), "name": "SynthModel_Program", "seed": 1}
vet(asked, "meta", EvidenceWriter(io.BytesIO()))
"""


def test_the_zygote_of_a_gpu_machine_leaves_cuda_to_its_workers() -> None:
    """Where torch sees a GPU the first compile initialises CUDA, and after that no fork can use it."""

    def warmed(device: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", UNTOUCHED, device], input=program("return x * 2"), capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    assert warmed("cuda").returncode == 0, warmed("cuda").stderr
    assert "CUDA was initialised" in warmed("cpu").stderr
