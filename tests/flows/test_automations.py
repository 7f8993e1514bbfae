"""The server notices that a flow's process is gone, and only then."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from flows.prefect_server.connection import connected
from flows.prefect_server.server import Server

# A real run whose first stage never ends; its heartbeat comes as often as Prefect allows, every 30 s.
RUN = """
import sys, time
from pathlib import Path
from simulated import Bench, Runner

Runner(Path(sys.argv[1]), Bench(disturb=lambda *_: time.sleep(600)))(num_total_samples=1)
"""


@contextmanager
def running(folder: Path, server: Server) -> Iterator[subprocess.Popen[bytes]]:
    variables = {
        "PREFECT_API_URL": server.url,
        "PREFECT_HOME": str(folder),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PYTHONPATH": str(Path(__file__).parents[1] / "helpers"),
        "PATH": "/usr/bin:/bin",
    }
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder)], env=variables)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_flow_run_whose_process_was_killed_is_marked_as_crashed(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "server", options={}) as server,
        connected({"PREFECT_API_URL": server.url, "PREFECT_HOME": str(tmp_path / "client")}),
    ):
        from prefect.client.orchestration import get_client
        from prefect.states import Running

        from flows.prefect_server import automations
        from flows.synth import synth

        automations.create(timedelta(hours=1))
        automations.create(timedelta(seconds=75))  # brought up to date, not made twice
        with (
            get_client(sync_client=True) as client,
            running(tmp_path / "killed", server) as killed,
        ):

            def states() -> list[str]:
                runs = client.read_flow_runs()
                return sorted(str(run.state.name) for run in runs if run.state)

            while states() != ["Running"]:
                time.sleep(1)
            with running(tmp_path / "alive", server):
                while states() != ["Running", "Running"]:
                    time.sleep(1)
                time.sleep(10)  # events are sent in the background: the first heartbeat is out by now
                client.create_flow_run(
                    synth, parameters={"settings": {}}, state=Running()
                )  # and dies at once
                killed.kill()
                while states().count("Crashed") < 2:
                    time.sleep(1)
                assert states() == ["Crashed", "Crashed", "Running"]
            assert len(client.read_automations()) == 1
