"""A run whose process is gone is shown as Crashed, and no other, whatever the server's automation missed."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.states import Completed, Pending, Running
from simulated import Runner

from flows.prefect_server import dead_runs
from flows.prefect_server.connection import connected
from flows.prefect_server.dead_runs import crash_zombies
from flows.prefect_server.server import Server
from flows.prefect_server.up import _Lookout, _tend
from flows.prefect_server.workers import PoolWorker
from flows.synth import synth

SILENCE = timedelta(seconds=10)


@task
def work() -> None: ...


@flow
def other_peoples() -> None: ...


@flow(name="report")
def another_report() -> None: ...


@pytest.fixture
def client(server: Server) -> Iterator[SyncPrefectClient]:
    with (
        connected({"PREFECT_API_URL": server.url, "PREFECT_HOME": str(server.home)}),
        get_client(sync_client=True) as client,
    ):
        yield client


def begin(client: SyncPrefectClient, state: State, of: object = synth) -> UUID:
    parameters: dict[str, Any] = {"settings": {}} if of is synth else {}
    return client.create_flow_run(of, parameters=parameters, state=state).id  # type: ignore[arg-type]


def test_a_flow_run_that_gives_no_sign_is_taken_for_dead(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: State[Any] = Running(
        timestamp=datetime.now(UTC) + timedelta(days=40)
    )  # by a clock that was set back since
    dead = [begin(client, state) for state in (Running(), Pending(), ahead)]
    heard = begin(client, Running())
    foreign = [begin(client, Running(), each) for each in (other_peoples, another_report)]
    monkeypatch.setattr(dead_runs, "_PAGE", 2)
    open_tasks = [
        client.create_task_run(work, flow_run_id=dead[0], dynamic_key=str(i), state=Running()).id
        for i in range(5)
    ]
    time.sleep(SILENCE.total_seconds())
    resource = {"prefect.resource.id": f"prefect.flow-run.{heard}"}
    soon = datetime.now(UTC) + SILENCE * 0.8  # so that a server may take its time
    emit_event("prefect.flow-run.heartbeat", resource=resource, occurred=soon)
    beat = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=list(resource.values())),
        occurred=EventOccurredFilter(until=soon + SILENCE),  # type: ignore[arg-type]
    )
    while not client.read_events(beat, limit=1).events:
        time.sleep(0.1)
    new = begin(client, Running())
    crash_zombies(SILENCE)

    def state_of(run: UUID) -> str:
        state = client.read_flow_run(run).state
        return str(state.name) if state else ""

    assert [state_of(run) for run in dead] == ["Crashed"] * 3
    assert [state_of(run) for run in (heard, *foreign, new)] == ["Running"] * 4
    assert {client.read_task_run(each).state_name for each in open_tasks} == {"Crashed"}
    for run in (heard, *foreign, new):
        client.set_flow_run_state(run, Completed(), force=True)


def test_task_runs_that_an_ended_flow_run_left_open_are_closed(client: SyncPrefectClient) -> None:
    """As the automation leaves them, which marks flow runs alone."""
    run = begin(client, Running())
    open_task = client.create_task_run(work, flow_run_id=run, dynamic_key="0", state=Running())
    done = client.create_task_run(work, flow_run_id=run, dynamic_key="1", state=Completed())
    client.set_flow_run_state(run, Completed(), force=True)
    crash_zombies(timedelta(hours=1))
    assert client.read_task_run(open_task.id).state_name == "Running"  # its last word may be under way
    crash_zombies(timedelta())
    assert client.read_task_run(open_task.id).state_name == "Crashed"
    assert client.read_task_run(done.id).state_name == "Completed"


def test_a_flow_run_that_was_taken_for_dead_and_lives_has_the_last_word(client: SyncPrefectClient) -> None:
    run = begin(client, Running())
    crash_zombies(timedelta())
    client.set_flow_run_state(run, Completed())
    state = client.read_flow_run(run).state
    assert state
    assert state.is_completed()


class Watch(PoolWorker):
    """In the place of a worker: one flow run after the other is found dead; the last ends `synth up`."""

    def __init__(self, client: SyncPrefectClient, runs: int) -> None:
        self.client, self.left, self.run = client, runs, begin(client, Running())

    def tend(self, say: Callable[[str], None]) -> None:
        state = self.client.read_flow_run(self.run).state
        if state and state.is_crashed():
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            self.run = begin(self.client, Running())


def test_up_looks_again_and_again(
    client: SyncPrefectClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_runs, "SILENCE", timedelta())
    monkeypatch.setattr(dead_runs, "crash_zombies", functools.partial(crash_zombies, timedelta()))
    monkeypatch.setattr("flows.prefect_server.up._LOOKS_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        _tend(server, [Watch(client, 2)], print)


@pytest.mark.parametrize(("slept", "looks"), [(0.0, 1), (3600.0, 0)])
def test_up_waits_again_when_the_machine_has_slept(
    monkeypatch: pytest.MonkeyPatch, slept: float, looks: int
) -> None:
    """A run that slept with it has been silent for as long."""
    looked = threading.Semaphore(0)
    monkeypatch.setattr(dead_runs, "crash_zombies", looked.release)
    monkeypatch.setattr(dead_runs, "SILENCE", timedelta())
    lookout, real = _Lookout(), time.time
    monkeypatch.setattr(dead_runs, "SILENCE", timedelta(hours=1))
    monkeypatch.setattr(time, "time", lambda: real() + slept)
    lookout.tend()
    assert looked.acquire(timeout=5.0 if looks else 0.5) is bool(looks)


# Killed between the start of its flow run and its record, so that nothing else tells of that flow run.
CUT_SHORT = """
import os, signal, sys
from pathlib import Path
import flows.synth
from simulated import Runner

flows.synth.plan_run = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
Runner(Path(sys.argv[1]))(num_total_samples=1)
"""


def test_the_history_of_a_folder_shows_no_run_at_work_that_was_killed_in_its_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "his"))  # names no server, so a private one
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "helpers"))
    subprocess.run([sys.executable, "-c", CUT_SHORT, str(tmp_path / "out")], check=False)
    home = tmp_path / "out" / ".synth" / "prefect"
    assert states(home) == ["Running"]
    Runner(tmp_path / "out")(num_total_samples=1)
    assert states(home) == ["Completed", "Crashed"]


def states(home: Path) -> list[str]:
    """Of the flow runs in a server's history."""
    with (
        Server(home) as server,
        connected({"PREFECT_API_URL": server.url, "PREFECT_HOME": str(home)}),
        get_client(sync_client=True) as client,
    ):
        return sorted(str(run.state.name) for run in client.read_flow_runs() if run.state)
