"""`synth up`, its worker, and a deployment whose validation is handed to the pool, from end to end."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.connection import connected
from flows.up import up_check

UP = """
import sys
from pathlib import Path
from flows.up import up
up(port=int(sys.argv[1]), home=Path("home"), gpu=True)
"""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (tmp_path / "up.log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", UP, str(port)], cwd=tmp_path, stdout=log, stderr=log
    )
    try:
        deadline = time.monotonic() + 240
        while "to stop" not in (tmp_path / "up.log").read_text():
            assert process.poll() is None, (tmp_path / "up.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def await_workers(api: str) -> list[str]:
    deadline = time.monotonic() + 120
    while True:
        amiss = [finding.detail for finding in up_check(api) if not finding.ok]
        if not amiss or time.monotonic() > deadline:
            return amiss
        time.sleep(2)


def run_a_deployment(api: str, folder: Path, storage: str, seed: int) -> Any:
    """Two candidates by `synth/single-debug`, validated by the pool; its flow run when it has ended."""
    settings = {
        "num_total_samples": 2,
        "num_core_ops_range": [1, 1],
        "num_compound_ops_range": [0, 0],
        "num_supporting_ops_range": [1, 1],
        "seed": seed,
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder.parent / "cache"),
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
    warm_up(tmp_path / "cache")
    assert await_workers(api) == []
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
        artifacts = {key for (key,) in database.execute("select key from artifact")}
    assert sum(name.startswith("validate-") for name, _ in flows) == 2
    assert {state for _, state in flows} == {"Completed"}
    assert {"progress", "yield-per-stage", "failures", "report"} <= artifacts
    assert not os.environ.get("PREFECT_API_URL")
