"""Dask workers give what one process gives, also when some of them die."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster

from flows.pipeline.compute import open_compute
from flows.pipeline.dask_workers import open_on_dask
from flows.pipeline.stages import drop_unasked
from synth_core.errors import EnvironmentFault
from synth_core.prompting import render_prompts
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Candidate, Manifest, Specification, Stage, Verdict
from synth_core.sampling.sample import sample
from synth_core.settings import BudgetSettings, Settings
from synth_core.strategies import effective_strategies
from tasks.stages import Step

STAGE = Stage.VALIDATE_EAGER
PLACE = Manifest(path="", digest="", stage=STAGE, total=0, alive=0)


@contextlib.contextmanager
def open_slow(settings: Settings) -> Iterator[dict[Stage, Step]]:
    """On the worker: a tenth of a second a candidate; leaves the worker's pid in output_dir."""
    mark = Path(settings.output_dir, f"{os.getpid()}.pid")
    mark.write_text(settings.cache_dir)

    def judge(candidate: Candidate) -> Candidate:
        time.sleep(0.1)
        return candidate.judged(Verdict.ok(STAGE, detail=f"judged {candidate.specification.seed}"))

    yield {STAGE: lambda candidates, _: [judge(candidate) for candidate in candidates]}
    mark.rename(mark.with_suffix(".closed"))


@contextlib.contextmanager
def standing_cluster(workers: int) -> Iterator[LocalCluster]:
    """Somebody else's: it was there before the run and stays after it."""
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def candidates(count: int) -> list[Candidate]:
    made = [
        Candidate(
            index=i,
            specification=Specification(
                operators=("ReLU",), strategy="a", seed=i, provider="b", prompt="c", temperature=0
            ),
        )
        for i in range(count)
    ]
    made[3] = made[3].judged(Verdict.fail(Stage.EXTRACT, "NO_CODE", "dead before"))  # type: ignore[arg-type]
    return made


@pytest.mark.slow
def test_workers_may_die_under_the_work(tmp_path: Path) -> None:
    settings = Settings(output_dir=str(tmp_path), num_worker=3, runner="dask")
    given = candidates(200)
    with open_slow(settings) as local:
        expected = [c if not c.alive else local[STAGE]([c], PLACE)[0] for c in given]
    next(tmp_path.glob("*.closed")).unlink()  # this process's own

    def kill_two() -> None:
        while len(pids := list(tmp_path.glob("*.pid"))) < 3:
            time.sleep(0.1)
        for path in pids[:2]:
            os.kill(int(path.stem), signal.SIGKILL)

    killer = threading.Thread(target=kill_two)
    killer.start()
    with open_on_dask(settings, [STAGE], open_slow) as remote:
        assert remote[STAGE](given, PLACE) == expected
    killer.join()
    assert len([*tmp_path.glob("*.pid"), *tmp_path.glob("*.closed")]) > 3  # others took their place


def test_says_so_where_no_scheduler_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.pipeline.dask_workers._CONNECT", "1s")
    settings = Settings(output_dir=str(tmp_path), runner="dask", dask_address="tcp://127.0.0.1:9")
    with (
        pytest.raises(EnvironmentFault, match="no Dask scheduler at"),
        open_on_dask(settings, [STAGE], open_slow),
    ):
        pass


def test_a_standing_cluster_keeps_nothing_of_a_run_that_is_over(tmp_path: Path) -> None:
    with standing_cluster(1) as cluster:
        for seed in (1, 2):
            settings = Settings(
                output_dir=str(tmp_path),
                runner="dask",
                dask_address=cluster.scheduler_address,
                seed=seed,
                cache_dir="/of/the/flow",
            )
            with open_on_dask(settings, [STAGE], open_slow) as remote:
                assert len(remote[STAGE](candidates(4), PLACE)) == 4
                (mark,) = tmp_path.glob("*.pid")
                assert mark.read_text() not in ("", "/of/the/flow")  # the worker's own
            while list(tmp_path.glob("*.pid")):
                time.sleep(0.05)


def test_says_so_where_a_scheduler_has_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.pipeline.dask_workers._WORKER_SECONDS", 0.2)
    with standing_cluster(0) as cluster:
        settings = Settings(output_dir=str(tmp_path), runner="dask", dask_address=cluster.scheduler_address)
        with (
            pytest.raises(EnvironmentFault, match=r"has no worker \(start one: dask worker tcp://"),
            open_on_dask(settings, [STAGE], open_slow),
        ):
            pass


def test_says_so_where_the_last_worker_leaves_under_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.pipeline.dask_workers._WORKER_SECONDS", 0.2)
    monkeypatch.setattr("flows.pipeline.dask_workers._CHECK_SECONDS", 0.2)
    with standing_cluster(1) as cluster:
        settings = Settings(output_dir=str(tmp_path), runner="dask", dask_address=cluster.scheduler_address)
        with open_on_dask(settings, [STAGE], open_slow) as remote:
            leaving = threading.Timer(0.5, cluster.scale, [0])
            leaving.start()
            with pytest.raises(EnvironmentFault, match="has no worker"):
                remote[STAGE](candidates(2000), PLACE)
            leaving.join()


@pytest.mark.slow
def test_a_budget_is_the_whole_runs_and_leaves_out_the_same_candidates(tmp_path: Path) -> None:
    settings = Settings(
        output_dir=str(tmp_path),
        cache_dir=str(tmp_path / "cache"),
        num_worker=2,
        runner="dask",
        seed=1,
        num_core_ops_range=(1, 1),
        budget=BudgetSettings(calls=5),
    )
    asked = render_prompts(sample(settings, effective_strategies(settings)[0], range(20)))
    with Dispatcher(settings) as here:
        expected = drop_unasked(here.complete(asked))
    with Dispatcher(settings) as flow, open_compute(settings, flow.admit) as steps:
        halves = [steps[Stage.LLM](half, PLACE) for half in (asked[:3], asked[3:])]
        assert flow.budget_spent == here.budget_spent == "the budget of 5 calls is spent"

    def texts(candidates: list[Candidate]) -> dict[str, str]:
        return {c.id: c.completion.text for c in candidates if c.completion}

    assert len(expected) == 5
    assert texts([*halves[0], *halves[1]]) == texts(expected)
