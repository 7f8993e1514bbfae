"""What a user is told of a run that ends before its time: how to go on, or what ails his server."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from simulated import Bench, Runner

from flows.cli.check import _prefect
from flows.cli.generate import generate, resume
from flows.prefect_server.server import PRIVATE, Server
from synth_core.errors import EnvironmentFault
from synth_core.records import Stage
from synth_core.settings import Settings
from synth_core.settings.sources import load_settings
from synth_core.store import plan_run, run_ids, save_run

NOBODY = "http://user:hush@127.0.0.1:9/api"


def said_at_an_interrupt(folder: Path, work: Callable[[], object]) -> str:
    """The last line of what the command says where Ctrl-C is pressed once a run of the folder is at work."""

    def records() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.glob(".synth/runs/*/run.json")}

    def press(before: dict[Path, int]) -> None:
        while records() == before:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, args=(records(),), daemon=True).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    return str(caught.value).splitlines()[-1]


@pytest.mark.usefixtures("runner")
def test_the_command_that_goes_on_names_the_run_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a newer one lies in the folder, and whatever way the folder was named."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "out"
    newer = plan_run(Settings(output_dir=str(folder), seed=1), now=datetime(2100, 1, 1, tzinfo=UTC))
    save_run(newer)
    asked = load_settings({"output_dir": "~/out", "num_total_samples": 500})
    said = said_at_an_interrupt(folder, lambda: generate(asked, as_json=True))
    (run_id,) = set(run_ids(folder)) - {newer.run_id}
    assert said == f"synth resume --output-dir {folder} --run {run_id}"
    assert said_at_an_interrupt(folder, lambda: resume(asked, run_id, as_json=True)) == said


def test_a_server_of_the_users_own_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOBODY)
    with pytest.raises(
        EnvironmentFault, match=r"http://127\.0\.0\.1:9/api does not answer .* unset PREFECT_API_URL"
    ):
        Runner(tmp_path)(num_total_samples=2)
    (finding,) = _prefect(Settings())
    assert not finding.ok
    assert "http://127.0.0.1:9/api does not answer" in finding.detail


def test_a_server_that_refuses_the_login_is_not_told_as_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(tmp_path, options={**PRIVATE, "PREFECT_SERVER_API_AUTH_STRING": "user:right"}) as server:
        monkeypatch.setenv("PREFECT_API_URL", server.url)
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:wrong")
        (finding,) = _prefect(Settings())
    assert not finding.ok
    assert f"{server.url} refuses the login (401); set PREFECT_API_AUTH_STRING" in finding.detail


@pytest.mark.slow
def test_a_server_of_the_users_own_that_is_lost_in_a_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(tmp_path / "prefect") as server:
        monkeypatch.setenv("PREFECT_API_URL", server.url)
        monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
        (finding,) = _prefect(Settings())
        assert finding.ok

        def lose(stage: Stage, _: object) -> None:
            if stage is Stage.PERSIST:
                server.__exit__(None, None, None)

        runner = Runner(tmp_path / "out", Bench(disturb=lose))
        with pytest.raises(EnvironmentFault, match=f"{server.url} does not answer .* resume` continues"):
            runner(num_total_samples=2)
    assert runner.programs()
