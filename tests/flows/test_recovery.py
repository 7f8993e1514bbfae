"""A scheduled run goes on with what was cut short in its folder; nothing there keeps it from its own work."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from httpx import ConnectError, HTTPStatusError, Request, Response
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.concurrency._leases import maintain_concurrency_lease
from prefect.states import Cancelling, Running
from simulated import Bench, Runner

from flows.pipeline.plan import Plan, plan_resume
from flows.pipeline.stages import RunStages
from flows.prefect_server.connection import MUTED, connected
from flows.prefect_server.locks import try_lock
from flows.prefect_server.server import SILENT
from synth_core.atomic import write_atomic
from synth_core.errors import EnvironmentFault, HopelessProvider, UsageError
from synth_core.settings import Settings
from synth_core.store import (
    Run,
    RunState,
    finish_run,
    load_run,
    plan_run,
    run_ids,
    save_run,
)

ASKED = Request("POST", "http://127.0.0.1/api")


@dataclass
class Opening(Bench):
    """A bench that some runs cannot open.

    opened: whether each run had its lock then, in order. started: the flow run that its record named before.
    """

    trouble: dict[str, Exception] = field(default_factory=dict)
    opened: dict[str, bool] = field(default_factory=dict)
    started: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def open(self, plan: Plan) -> Iterator[RunStages]:
        run = plan.run
        with try_lock(run.folder / "lock") as free:
            self.opened[run.run_id] = not free
        if error := self.trouble.get(run.run_id) or self.trouble.get(""):
            raise error
        with super().open(plan) as run_stages:
            yield run_stages


Nightly = Callable[[Opening], None]


@pytest.fixture
def nightly(runner: Runner) -> Nightly:
    """A scheduled run into the runner's folder, as a worker starts it."""

    def run(bench: Opening) -> None:
        from flows.synth import SESSION, Session, synth

        def started(run: Run) -> None:
            bench.started[run.run_id] = _now(run).flow_run_id

        token = SESSION.set(Session(open_stages=bench.open, resume_interrupted=True, started=started))
        try:
            with connected({**SILENT, **MUTED}):
                synth(_settings(runner))
        finally:
            SESSION.reset(token)

    return run


def _settings(runner: Runner, seed: int = 7) -> Settings:
    return Settings(output_dir=str(runner.folder), seed=seed, num_total_samples=4, max_retries=0)


def _earlier(runner: Runner, state: RunState, takeovers: int = 0) -> Run:
    run = save_run(plan_run(_settings(runner, seed=3))).model_copy(update={"takeovers": takeovers})
    return finish_run(run, state)


def _now(run: Run) -> Run:
    return load_run(run.output_dir, run.run_id)


def test_nothing_in_the_folder_keeps_a_scheduled_run_from_its_own(runner: Runner, nightly: Nightly) -> None:
    unreadable, held, hopeless, waiting = (_earlier(runner, RunState.INTERRUPTED) for _ in range(4))
    (unreadable.folder / "run.json").write_text('{"of": "another version"}')
    bench = Opening(trouble={hopeless.run_id: UsageError("no key")})
    with try_lock(held.folder / "lock"):
        nightly(bench)
    tonight = run_ids(runner.folder)[-1]
    others = {unreadable.run_id, held.run_id, hopeless.run_id, waiting.run_id}
    assert tonight not in others
    assert bench.opened == {hopeless.run_id: True, waiting.run_id: True, tonight: True}
    flow_run_id = load_run(runner.folder, tonight).flow_run_id
    assert bench.started == dict.fromkeys(bench.opened, flow_run_id)
    assert load_run(runner.folder, tonight).state is RunState.COMPLETED
    states = [_now(run).state for run in (held, hopeless, waiting)]
    assert states == [RunState.INTERRUPTED, RunState.FAILED, RunState.COMPLETED]


def test_a_run_that_another_process_has_just_ended_is_left_alone(
    runner: Runner, nightly: Nightly, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, bench = _earlier(runner, RunState.INTERRUPTED), Opening()

    def load(output_dir: str, run_id: str) -> Run:
        """Between the first look at the run and the lock it is ended."""
        found = load_run(output_dir, run_id)
        finish_run(run, RunState.COMPLETED)
        return found

    monkeypatch.setattr("flows.pipeline.recovery.load_run", load)
    nightly(bench)
    assert run.run_id not in bench.opened


def test_a_run_is_locked_before_its_record_can_be_read(
    runner: Runner, nightly: Nightly, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_at_birth: list[bool] = []

    def watch(path: Path, data: bytes) -> None:
        if path.name == "run.json" and not path.exists():
            with try_lock(path.with_name("lock")) as free:
                free_at_birth.append(free)
        write_atomic(path, data)

    monkeypatch.setattr("synth_core.store.runs.write_atomic", watch)
    nightly(Opening())
    assert free_at_birth == [False]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (EnvironmentFault("no space left on device"), RunState.INTERRUPTED),
        (HopelessProvider("the provider answers no more"), RunState.INTERRUPTED),
        (OSError("stale file handle"), RunState.INTERRUPTED),
        (ConnectError("the server is gone"), RunState.INTERRUPTED),
        (HTTPStatusError("", request=ASKED, response=Response(503)), RunState.INTERRUPTED),
        (HTTPStatusError("", request=ASKED, response=Response(422)), RunState.FAILED),
        (UsageError("no key"), RunState.FAILED),
        (KeyError("a mistake of ours"), RunState.FAILED),
    ],
)
def test_the_next_scheduled_run_goes_on_after_what_passes_by_itself(
    runner: Runner, nightly: Nightly, error: Exception, state: RunState
) -> None:
    with pytest.raises(type(error)):
        nightly(Opening(trouble={"": error}))
    (first,) = run_ids(runner.folder)
    assert load_run(runner.folder, first).state is state
    bench = Opening()
    nightly(bench)
    assert (first in bench.opened) is (state is RunState.INTERRUPTED)
    assert len(run_ids(runner.folder)) == 2


def test_the_next_scheduled_run_goes_on_with_one_that_lost_its_place(
    runner: Runner, nightly: Nightly
) -> None:
    """A server that forgot the lease of a run, as one that keeps them in memory does, has it ended."""

    class Dispossessed(Opening):
        @contextlib.contextmanager
        def open(self, plan: Plan) -> Iterator[RunStages]:
            with (
                maintain_concurrency_lease(uuid4(), 300, raise_on_lease_renewal_failure=True),
                super().open(plan) as run_stages,
            ):
                yield run_stages

    def until_it_is_lost(*_: object) -> None:
        while any(thread.name.startswith("concurrency-lease") for thread in threading.enumerate()):
            time.sleep(0.1)

    with pytest.raises(asyncio.CancelledError):
        nightly(Dispossessed(disturb=until_it_is_lost))
    (first,) = run_ids(runner.folder)
    assert load_run(runner.folder, first).state is RunState.INTERRUPTED
    nightly(Opening())
    assert load_run(runner.folder, first).state is RunState.COMPLETED


@pytest.mark.parametrize(
    ("state", "takeovers", "becomes"),
    [(RunState.RUNNING, 1, "Crashed"), (RunState.INTERRUPTED, 0, "Crashed"), (RunState.FAILED, 1, "Running")],
)
def test_a_flow_run_is_taken_for_dead_with_its_parts_but_not_while_it_has_other_work(
    runner: Runner, state: RunState, takeovers: int, becomes: str
) -> None:
    """One that took a run up goes on with tonight's when it has noted how that ended."""

    @flow
    def work() -> None: ...

    @task
    def part() -> None: ...

    with connected({}), get_client(sync_client=True) as client:
        parent = client.create_flow_run(work, state=Running())
        within = client.create_task_run(part, flow_run_id=parent.id, dynamic_key="0")
        child = client.create_flow_run(work, state=Running(), parent_task_run_id=within.id)
        earlier = _earlier(runner, state, takeovers).model_copy(update={"flow_run_id": str(parent.id)})
        save_run(earlier)
        runner(resume=earlier.run_id)
        states = [client.read_flow_run(each.id).state for each in (parent, child)]
    assert [each.name for each in states if each] == [becomes, becomes]


def test_a_run_that_can_never_go_on_is_not_taken_up_for_ever(runner: Runner, nightly: Nightly) -> None:
    stuck = _earlier(runner, RunState.INTERRUPTED, takeovers=4)
    nightly(Opening(trouble={stuck.run_id: EnvironmentFault("the provider answers no more")}))
    assert (_now(stuck).state, _now(stuck).takeovers) == (RunState.INTERRUPTED, 5)
    bench = Opening()
    nightly(bench)
    assert stuck.run_id not in bench.opened
    runner.bench = bench
    runner(resume=stuck.run_id)  # a person may go on with it
    assert (_now(stuck).state, _now(stuck).takeovers) == (RunState.COMPLETED, 0)


def test_nothing_goes_on_with_a_run_that_a_person_cancelled(runner: Runner, nightly: Nightly) -> None:
    class Cancelled(Opening):
        @contextlib.contextmanager
        def open(self, plan: Plan) -> Iterator[RunStages]:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(UUID(plan.run.flow_run_id), Cancelling(), force=True)
            with super().open(plan) as run_stages:
                yield run_stages

    earlier = _earlier(runner, RunState.INTERRUPTED)
    with pytest.raises(EnvironmentFault):
        nightly(Cancelled(trouble={"": EnvironmentFault("what a cancelled run runs into")}))
    assert _now(earlier).state is RunState.FAILED
    assert run_ids(runner.folder) == [earlier.run_id]  # nor was a new one begun


def test_resume_passes_over_a_run_that_it_cannot_read(runner: Runner) -> None:
    run, newer = _earlier(runner, RunState.FAILED), _earlier(runner, RunState.FAILED)
    first, last = sorted((run, newer), key=lambda each: each.run_id)
    (last.folder / "run.json").write_text("{}")
    with plan_resume(runner.folder) as plan:
        assert plan.run.run_id == first.run_id
