"""`synth up`, its worker, and a deployment whose validation is handed to the pool, from end to end."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployment_runs_and_hands_its_shards_to_the_pool(api: str, tmp_path: Path) -> None:
    assert await_workers(api) == []
    settings = {
        "num_total_samples": 2,
        "num_core_ops_range": [1, 1],
        "num_compound_ops_range": [0, 0],
        "num_supporting_ops_range": [1, 1],
        "seed": 7,
        "output_dir": str(tmp_path / "out"),
        "cache_dir": str(tmp_path / "cache"),
        "validation": {"pool": "gpu", "pool_wait": 120, "pool_storage": str(tmp_path / "shared")},
    }
    with connected({"PREFECT_API_URL": api, "PREFECT_HOME": str(tmp_path / "client")}):
        from prefect.deployments import run_deployment

        run = run_deployment("synth/single-debug", parameters={"settings": settings}, timeout=600)
    assert run.state.is_completed(), run.state
    with sqlite3.connect(tmp_path / "home" / "prefect.db") as database:
        flows = dict(
            database.execute("select name, state_name from flow_run where state_name <> 'Scheduled'")
        )
        artifacts = {key for (key,) in database.execute("select key from artifact")}
    assert any(name.startswith("validate-") for name in flows)
    assert set(flows.values()) == {"Completed"}
    assert {"progress", "yield-per-stage", "failures", "report"} <= artifacts
    assert list((tmp_path / "shared" / "validate-compile").glob("*.parquet"))
    assert list((tmp_path / "out").glob("*.py"))
    assert not os.environ.get("PREFECT_API_URL")
