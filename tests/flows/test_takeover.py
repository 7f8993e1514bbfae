"""A scheduled run goes on with what was cut short in its folder; nothing there keeps it from its own work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from httpx import ConnectError
from prefect.client.orchestration import get_client
from prefect.states import Cancelling
from simulated import Bench, Runner

from flows.connection import MUTED, connected
from flows.locks import try_lock
from flows.server import SILENT
from flows.workshop import Workshop
from synth_core.errors import EnvironmentFault, HopelessProvider, UsageError
from synth_core.settings import Settings
from synth_core.store import (
    Run,
    RunState,
    finish_run,
    latest_unfinished_run,
    load_run,
    plan_run,
    run_ids,
    save_run,
)
from synth_core.store.atomic import write_atomic


@dataclass
class Opening(Bench):
    """A bench that some runs cannot open. opened: whether each run had its lock then, in order."""

    trouble: dict[str, Exception] = field(default_factory=dict)
    opened: dict[str, bool] = field(default_factory=dict)

    @contextlib.contextmanager
    def open(self, run: Run) -> Iterator[Workshop]:
        with try_lock(run.folder / "lock") as free:
            self.opened[run.run_id] = not free
        if error := self.trouble.get(run.run_id) or self.trouble.get(""):
            raise error
        with super().open(run) as workshop:
            yield workshop


Nightly = Callable[[Opening], None]


@pytest.fixture
def nightly(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Nightly:
    """A scheduled run into the runner's folder, as a worker starts it."""

    def run(bench: Opening) -> None:
        from flows.synth import SESSION, Session, synth

        alone = Session(open_workshop=bench.open)
        monkeypatch.setattr("flows.synth._ALONE", alone)
        token = SESSION.set(alone)
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

    monkeypatch.setattr("flows.synth.load_run", load)
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
        def open(self, run: Run) -> Iterator[Workshop]:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(UUID(run.flow_run_id), Cancelling(), force=True)
            with super().open(run) as workshop:
                yield workshop

    earlier = _earlier(runner, RunState.INTERRUPTED)
    with pytest.raises(EnvironmentFault):
        nightly(Cancelled(trouble={"": EnvironmentFault("what a cancelled run runs into")}))
    assert _now(earlier).state is RunState.FAILED
    assert run_ids(runner.folder) == [earlier.run_id]  # nor was a new one begun


def test_resume_passes_over_a_run_that_it_cannot_read(runner: Runner) -> None:
    run, newer = _earlier(runner, RunState.FAILED), _earlier(runner, RunState.FAILED)
    first, last = sorted((run, newer), key=lambda each: each.run_id)
    (last.folder / "run.json").write_text("{}")
    found = latest_unfinished_run(runner.folder)
    assert found
    assert found.run_id == first.run_id
