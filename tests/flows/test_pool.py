"""What a run hands to the pool `gpu`, and what it does when that fails. From end to end: test_up.py."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from simulated import Bench, Runner
from threaded_worker import Worker, await_held, complete, hold

from flows.pipeline.gpu_pool import POOL, GpuPool
from flows.prefect_server.connection import connected
from flows.validate import validate
from synth_core.errors import EnvironmentFault
from synth_core.records import Candidate, Manifest, Stage
from synth_core.settings import Settings
from synth_core.store import RunState, describe_shard, latest_run, plan_run, read_shard, save_run
from tasks.cache import Shelf
from tasks.stages import Step
from tasks.versions import judged_by

GPU = {"pool": "gpu", "pool_wait": 0}
FAIL = {**GPU, "pool_fallback": "fail"}


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.pipeline.gpu_pool._POLL_SECONDS", 0.2)
    monkeypatch.setattr("flows.pipeline.gpu_pool._ARRIVAL_SECONDS", 0.0)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """What the pool's worker validates with; its settings end up in `there.settings`."""
    bench = Bench()

    @contextlib.contextmanager
    def open_compute(settings: Settings) -> Iterator[dict[Stage, Step]]:
        bench.settings = settings  # type: ignore[attr-defined]
        yield {
            Stage.VALIDATE_EAGER: bench._counted(Stage.VALIDATE_EAGER, bench._validate),
            Stage.VALIDATE_COMPILE: bench._counted(
                Stage.VALIDATE_COMPILE, bench._pass(Stage.VALIDATE_COMPILE)
            ),
        }

    monkeypatch.setattr("flows.validate.open_compute", open_compute)
    return bench


def validated(bench: Bench) -> tuple[int, int]:
    return bench.count(Stage.VALIDATE_EAGER), bench.count(Stage.VALIDATE_COMPILE)


def test_without_a_worker_the_work_is_done_here(runner: Runner) -> None:
    summary = runner(num_total_samples=20, validation=GPU)
    assert summary.accepted > 0
    assert runner.bench.count(Stage.VALIDATE_COMPILE) > 0


def test_without_a_worker_the_run_fails_if_it_is_told_to(runner: Runner) -> None:
    with pytest.raises(EnvironmentFault, match="prefect worker start --pool gpu"):
        runner(num_total_samples=4, validation=FAIL)
    assert runner.bench.count(Stage.EXTRACT) == 1
    assert runner.bench.count(Stage.VALIDATE_EAGER) == 0


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU to fall back on")
def test_a_machine_without_a_gpu_does_not_stand_in_for_one(runner: Runner) -> None:
    with pytest.raises(EnvironmentFault, match=r"nor can this machine .* torch sees no CUDA device"):
        runner(num_total_samples=4, validation={**GPU, "device": "cuda"})
    assert validated(runner.bench) == (0, 0)


@pytest.mark.parametrize("by", ["path", "storage"])
def test_what_the_pool_judged_is_taken_over(by: str, runner: Runner, there: Bench, tmp_path: Path) -> None:
    storage = str(tmp_path / "shared") if by == "storage" else ""
    cache = str(tmp_path / "cache-of-the-flow")
    with Worker().online():
        runner(
            num_total_samples=4,
            max_retries=0,
            num_worker=7,
            cache_dir=cache,
            validation={**FAIL, "pool_storage": storage},
        )
    assert validated(there) == (1, 1)
    assert validated(runner.bench) == (0, 0)
    settings = there.settings  # type: ignore[attr-defined]
    assert settings.num_worker == len(os.sched_getaffinity(0))
    assert settings.cache_dir != cache


def test_results_that_do_not_come_are_missed(runner: Runner) -> None:
    with Worker(complete).online():
        with pytest.raises(EnvironmentFault, match="completed, yet of 1 shards 1 have no result"):
            runner(num_total_samples=4, validation=FAIL)
        runner(num_total_samples=4, validation=GPU)
    assert validated(runner.bench)[0] > 0


def test_a_worker_of_another_release_says_so(runner: Runner) -> None:
    settings = Settings(output_dir=str(runner.folder))
    with connected({}), pytest.raises(EnvironmentFault, match=r"this worker has torch .* instead of 2\.4\.0"):
        validate(settings, "run", [], {**judged_by(), "torch": "2.4.0"})


def test_builds_of_one_release_share_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Manifest(path="/x.parquet", digest="d", stage=Stage.EXTRACT, total=1, alive=1)
    keys = set()
    for build in ("2.13.0+cpu", "2.13.0+cu126", "2.13.0"):
        monkeypatch.setattr("tasks.versions.version", lambda _, build=build: build)
        keys.add(Shelf(Settings(), "run").key(Stage.VALIDATE_EAGER, shard))
    assert len(keys) == 1


def test_storage_out_of_reach_is_no_reason_not_to_validate_here(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    summary = runner(
        num_total_samples=4, validation={**GPU, "pool_storage": str(tmp_path / "file" / "below")}
    )
    assert summary.accepted > 0


def test_a_paused_pool_is_not_waited_for(runner: Runner) -> None:
    with Worker().online() as client:
        client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
        with pytest.raises(EnvironmentFault, match="is paused"):
            runner(num_total_samples=4, validation=FAIL)


def test_a_flow_run_that_nobody_takes_is_given_up(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.pipeline.gpu_pool._START_SECONDS", 0.5)
    worker = Worker(lambda client, flow_run: None)
    with worker.online() as client:
        with pytest.raises(EnvironmentFault, match="no worker of the pool 'gpu' takes validate/gpu"):
            runner(num_total_samples=4, validation=FAIL)
        state = client.read_flow_run(worker.taken[0]).state
        assert state is not None
        assert state.is_cancelled()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_ends_the_wait_for_a_worker(runner: Runner) -> None:
    def strike(stage: Stage, _: Sequence[Candidate]) -> None:
        if stage is Stage.EXTRACT:
            threading.Timer(1.0, interrupt).start()

    runner.bench.disturb = strike
    with pytest.raises(KeyboardInterrupt):
        runner(num_total_samples=4, validation={**GPU, "pool_wait": 10_000})
    assert validated(runner.bench) == (0, 0)


def test_an_interrupt_cancels_what_was_handed_over_and_a_resume_hands_it_over_again(
    runner: Runner, there: Bench
) -> None:
    def hold_and_interrupt(client, flow_run) -> None:  # type: ignore[no-untyped-def]
        hold(client, flow_run)
        interrupt()

    with Worker(hold_and_interrupt).online() as client:
        with pytest.raises(KeyboardInterrupt):
            runner(num_total_samples=4, max_retries=0, validation={**FAIL, "pool_wait": 10_000})
        (held,) = [run for run in client.read_flow_runs() if run.work_pool_name == POOL]
        assert held.state is not None
        assert held.state.is_cancelling()
    with Worker().online():
        runner(resume="")
    assert latest_run(runner.folder).state is RunState.COMPLETED
    assert (validated(there), validated(runner.bench)) == ((1, 1), (0, 0))


def test_the_same_shards_are_under_way_once(runner: Runner) -> None:
    settings = Settings(output_dir=str(runner.folder), seed=1).resolved()
    run = save_run(plan_run(settings))
    shards = [Manifest(path="/x.parquet", digest="d", stage=Stage.EXTRACT, total=1, alive=1)]
    with Worker(hold).online() as client:
        first, again = (
            GpuPool(run, Shelf(settings, run.run_id), threading.Event())._start(shards, shards)
            for _ in range(2)
        )
        assert first.id == again.id
        await_held(client, first)
        complete(client, first)
        third = GpuPool(run, Shelf(settings, run.run_id), threading.Event())._start(shards, shards)
        assert third.id != first.id


def test_a_resume_waits_for_what_the_killed_run_handed_over_and_is_partly_done(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    started: list[FlowRun] = []

    def start_and_die(*args: Any, **more: Any) -> None:
        flow_run = run_deployment(*args, **more)
        assert isinstance(flow_run, FlowRun)
        started.append(flow_run)
        raise Killed

    runner(num_total_samples=4, batch_size=2, max_retries=0)
    run, shards = latest_run(runner.folder), runner.folder / ".synth" / "shards"
    handed = [
        describe_shard(path, read_shard(path), stage=Stage.EXTRACT) for path in (shards / "extract").iterdir()
    ]
    done = {path: path.read_bytes() for path in (shards / "validate-compile").iterdir()}
    for path in done:
        path.unlink()
    monkeypatch.setattr("flows.pipeline.gpu_pool.run_deployment", start_and_die)
    with Worker(hold).online():
        for path, data in done.items():
            with pytest.raises(Killed):
                GpuPool(run, Shelf(run.settings, run.run_id), threading.Event()).hand_off(handed)
            path.write_bytes(data)
    assert started[0].id == started[1].id
