"""`synth up`, its workers, and a deployment whose validation is handed to the pool, from end to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Pending

from flows.cli.check_setup import up_check
from flows.cli.findings import Finding
from flows.prefect_server.connection import connected
from flows.prefect_server.server import Server
from flows.prefect_server.up import _VISIBLE, api_of, up
from flows.prefect_server.workers import PoolWorker, gpus, start_gpu_workers
from synth_core.errors import UsageError

UP = """
import sys
from pathlib import Path
from flows.prefect_server.up import up
up(port=int(sys.argv[1]), home=Path("home"), gpu=sys.argv[2] == "gpu")
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def upped(folder: Path, pool: str, user: Mapping[str, str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`synth up` in a process of its own, and the API it serves. user: variables the user has set."""
    port = free_port()
    with (folder / "up.log").open("w") as log:
        command = [sys.executable, "-u", "-c", UP, str(port), pool]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **user})
    try:
        deadline = time.monotonic() + 240
        while "to stop" not in (folder / "up.log").read_text():
            assert process.poll() is None, (folder / "up.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/api", process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


@pytest.fixture
def api(tmp_path: Path) -> Iterator[str]:
    with upped(tmp_path, "gpu", {"XDG_CACHE_HOME": str(tmp_path)}) as (url, _):
        yield url


def await_workers(api: str, *, gpu: bool) -> list[Finding]:
    """What is amiss, once nothing is or after a while."""
    deadline = time.monotonic() + 120
    while True:
        amiss = [finding for finding in up_check(api, gpu=gpu) if not finding.ok]
        if not amiss or time.monotonic() > deadline:
            return amiss
        time.sleep(2)


def processes_of(api: str) -> list[int]:
    """Workers and flow runs: what was told of this server by its environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            alive = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
            if alive and f"PREFECT_API_URL={api}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # gone, or another user's
            continue
    return found


def run_a_deployment(api: str, folder: Path, storage: str, seed: int) -> Any:
    """Two candidates by `synth/single-debug`, validated by the pool; its flow run when it has ended."""
    settings = {
        "num_total_samples": 2,
        "num_core_ops_range": [1, 1],
        "num_compound_ops_range": [0, 0],
        "num_supporting_ops_range": [1, 1],
        "seed": seed,
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder.parent / "synth"),  # as the pool's worker has it, by XDG_CACHE_HOME
        "validation": {"pool": "gpu", "pool_wait": 120, "pool_fallback": "fail", "pool_storage": storage},
    }
    with connected({"PREFECT_API_URL": api, "PREFECT_HOME": str(folder / "client")}):
        from prefect.deployments import run_deployment

        return run_deployment("synth/single-debug", parameters={"settings": settings}, timeout=600)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployment_runs_and_hands_its_shards_to_the_pool(
    api: str, tmp_path: Path, warm_up: Callable[[Path], Path]
) -> None:
    warm_up(tmp_path / "synth")
    assert await_workers(api, gpu=True) == []
    by_path, by_url = tmp_path / "by-path", tmp_path / "by-url"
    storages = ((by_path, str(by_path / "shared")), (by_url, f"file://{by_url}/shared"))
    for seed, (folder, storage) in enumerate(storages):
        run = run_a_deployment(api, folder, storage, seed)
        assert run.state.is_completed(), run.state
        assert list((folder / "shared" / "validate-compile").glob("*.parquet"))
        assert list((folder / "out").glob("*.py"))
    with sqlite3.connect(tmp_path / "home" / "prefect.db") as database:
        flows = list(
            database.execute("select name, state_name from flow_run where state_name <> 'Scheduled'")
        )
        artifacts = dict(database.execute("select key, type from artifact"))
        pages = [page for (page,) in database.execute("select data from artifact where key = 'report'")]
    assert sum(name.startswith("validate-") for name, _ in flows) == 2
    assert {state for _, state in flows} == {"Completed"}
    assert {"progress", "yield-per-stage", "failures", "report"} <= artifacts.keys()
    assert artifacts["report"] == "markdown", "a browser follows no link from a page of the server to a file"
    assert any(str(by_path / "out") in page for page in pages)
    assert not os.environ.get("PREFECT_API_URL")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_is_set_up_on_its_own_server_once_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever server the user has besides, and however `synth up` ends. To have no GPU is no fault."""
    elsewhere = {
        "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        "PREFECT_HOME": str(tmp_path / "his"),
    }
    with upped(tmp_path, "no-gpu", elsewhere) as (api, process):
        for name, text in elsewhere.items():
            monkeypatch.setenv(name, text)
        assert await_workers(api, gpu=False) == []
        assert [finding.name for finding in up_check(api, gpu=True) if not finding.ok] == ["pool gpu"]
        assert os.environ["PREFECT_API_URL"] == elsewhere["PREFECT_API_URL"]
        assert api_of(None, tmp_path / "home") == api
        with urllib.request.urlopen(f"{api.removesuffix('/api')}/ui-settings") as told:
            assert json.load(told)["api_url"] == api, "what the page asks, whatever the port"
        with sqlite3.connect(tmp_path / "home" / "prefect.db") as database:
            pools = dict(database.execute("select name, concurrency_limit from work_pool"))
        assert pools == {"cpu": None, "gpu": None}
        with pytest.raises(UsageError, match="already"):
            up(port=free_port(), home=tmp_path / "home")
        assert processes_of(api)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while processes_of(api) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert processes_of(api) == []


@pytest.mark.slow
def test_a_server_that_dies_forgets_no_lease(tmp_path: Path) -> None:
    """A deployment's run holds one while it may be the only one; it is ended where that can't be renewed."""
    with (
        Server(tmp_path, options=_VISIBLE) as server,
        connected({"PREFECT_API_URL": server.url, "PREFECT_HOME": str(tmp_path / "client")}),
        get_client(sync_client=True) as client,
    ):
        flow = client.create_flow_from_name("synth")
        deployment = client.create_deployment(flow, "one-at-a-time", concurrency_limit=1)
        run = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(run.id, Pending())
        state = client.read_flow_run(run.id).state
        assert state
        lease = state.state_details.deployment_concurrency_lease_id
        assert lease
        left_behind = tmp_path / "concurrency_leases" / "expirations.lock"
        left_behind.write_text(str(os.getpid()))  # in the middle of a write; of a process id that lives
        os.kill(server.pid, signal.SIGKILL)
        assert client.renew_concurrency_lease(lease, 300).is_success


@pytest.fixture
def _as_a_background_job() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_as_a_background_job")
def test_a_worker_that_dies_is_started_again_and_told_of(server: Server, tmp_path: Path) -> None:
    said: list[str] = []
    worker = PoolWorker("spare", {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(tmp_path)}, tmp_path)
    first = worker.pid
    os.kill(first, signal.SIGKILL)
    while worker.pid == first:
        worker.restart_if_dead(said.append)
        time.sleep(0.1)
    assert len(said) == 1
    assert "exit code -9" in said[0]
    while "started" not in worker.log.read_text():
        time.sleep(0.1)
    worker.restart_if_dead(said.append)
    assert len(said) == 1
    worker.end()
    assert "stopped" in worker.log.read_text(), "in order: it ended its flow runs first"


@pytest.mark.parametrize(
    ("there", "variable", "found"),
    [
        ((), "0", []),
        (("nvidia0", "nvidia1", "nvidiactl"), None, ["0", "1"]),
        (("nvidia3",), None, ["0"]),  # as a container may have it
        (("nvidia0", "nvidia1"), "1", ["1"]),
        (("nvidia0", "nvidia1"), "GPU-5f, 0", ["GPU-5f", "0"]),
        (("nvidia0",), "", []),
        (("nvidia0",), "-1", []),
        (("nvidia0", "nvidia1"), "1,-1,0", ["1"]),  # as CUDA does: up to the first that is none
        (("nvidia0", "nvidia1"), "1,1", ["1"]),
        (("nvidia0",), "NoDevFiles", []),
        (("nvidia0",), "MIG-GPU-5f/1/0", ["MIG-GPU-5f/1/0"]),
    ],
)
def test_each_gpu_that_is_left_to_cuda_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: tuple[str, ...],
    variable: str | None,
    found: list[str],
) -> None:
    for name in there:
        (tmp_path / name).touch()
    if variable is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert gpus(tmp_path) == found


def test_each_gpu_has_a_worker_with_a_share_of_the_cores(server: Server, tmp_path: Path) -> None:
    options = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(tmp_path)}
    workers = list(start_gpu_workers(options, tmp_path, ["0", "MIG-GPU-5f/1/0"]))
    try:
        seen = [
            variable
            for worker in workers
            for variable in Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
            if variable.startswith(b"CUDA_VISIBLE_DEVICES=")
        ]
        cores = [os.sched_getaffinity(worker.pid) for worker in workers]
    finally:
        for worker in workers:
            worker.end()
    assert seen == [b"CUDA_VISIBLE_DEVICES=0", b"CUDA_VISIBLE_DEVICES=MIG-GPU-5f/1/0"]
    assert set.union(*cores) == os.sched_getaffinity(0)
    if len(os.sched_getaffinity(0)) > 1:
        assert set.isdisjoint(*cores)


def test_a_check_asks_the_server_that_the_options_name(tmp_path: Path) -> None:
    assert api_of(4300, tmp_path) == "http://127.0.0.1:4300/api"
    assert api_of(None, None) == ""
    with pytest.raises(UsageError, match="no server was ever started in"):
        api_of(None, tmp_path)
