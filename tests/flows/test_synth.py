"""The flow, through real Prefect tasks and a real server, with stages that count what they do."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import temporary_settings
from simulated import Bench, Runner

from flows.run import run_synth
from synth_core.errors import EnvironmentFault, HopelessProvider
from synth_core.records import Candidate, Category, Manifest, Stage, Verdict
from synth_core.settings import Settings
from synth_core.store import RunState, latest_run, scan_ledger

AGAIN: dict[str, Any] = {
    "skip_filters": ["duplicate-operators"]
}  # else what the folder holds is not even asked for again
BEFORE_FILTER = tuple(stage for stage in Stage if stage not in (Stage.FILTER, Stage.PERSIST))


def test_every_attempt_is_accounted_for(runner: Runner) -> None:
    summary = runner(num_total_samples=40, max_retries=1)
    ledger = scan_ledger(runner.folder, summary.run_id).collect()
    assert summary.attempted == ledger.height > 40
    assert summary.accepted == len(runner.programs()) == ledger["accepted"].sum()
    assert summary.accepted + sum(summary.rejected.values()) == summary.attempted
    retried = ledger.filter(ledger["attempt"] == 1)
    assert set(retried["parent_id"]) == set(
        ledger.filter(ledger["category"] == "SHAPE_ERROR")["candidate_id"]
    )
    assert latest_run(runner.folder).state is RunState.COMPLETED


def test_the_last_batch_counts_however_late_its_word_comes(runner: Runner) -> None:
    settings = Settings(output_dir=str(runner.folder), seed=7, num_total_samples=4, max_retries=0)
    summary = run_synth(settings, observer=lambda progress: time.sleep(0.3), open_workshop=runner.bench.open)
    assert summary.attempted == summary.accepted + sum(summary.rejected.values()) == 4


def test_same_seed_gives_the_same_programs(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> None:
    runner(num_total_samples=40)
    other = Runner(tmp_path_factory.mktemp("other"))
    other(num_total_samples=40, batch_size=7)
    assert other.programs() == runner.programs() != {}


def test_equal_work_is_cached_from_sampling_to_the_filter(runner: Runner) -> None:
    runner(num_total_samples=20, **AGAIN)
    before = dict(runner.bench.done)
    runner(num_total_samples=20, num_worker=7, **AGAIN)
    again = {stage for (stage, _, _), times in runner.bench.done.items() if times > 1}
    assert again == {Stage.SAMPLE, Stage.FILTER, Stage.PERSIST}  # those that read the folder
    assert before.keys() == runner.bench.done.keys()


def test_a_setting_that_matters_recomputes_from_its_stage_on(runner: Runner) -> None:
    runner(num_total_samples=10, max_retries=0, **AGAIN)
    runner(num_total_samples=10, max_retries=0, validation={"timeout": 9}, **AGAIN)
    assert [runner.bench.count(stage) for stage in BEFORE_FILTER] == [2, 1, 1, 1, 2, 2]


def test_what_the_folder_holds_is_not_asked_for_again(runner: Runner) -> None:
    first = runner(num_total_samples=20, max_retries=0)
    second = runner(num_total_samples=20, max_retries=0)
    assert second.accepted == 0
    assert second.rejected["DUPLICATE"] == first.accepted
    ledger = scan_ledger(runner.folder, second.run_id).collect()
    assert set(ledger.filter(ledger["category"] == "DUPLICATE")["stage"]) == {Stage.SAMPLE}


def test_a_hit_counts_only_while_its_shard_exists(runner: Runner) -> None:
    runner(num_total_samples=32, max_retries=0, **AGAIN)
    shard = min((runner.folder / ".synth/shards/llm").glob("*.parquet"))
    shard.unlink()
    runner(num_total_samples=32, max_retries=0, **AGAIN)
    counts = [runner.bench.count(stage) for stage in BEFORE_FILTER]
    assert counts == [4, 2, 3, 2, 2, 2]  # made anew, found equal: what follows stays cached


def test_resume_does_only_what_is_missing(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> None:
    undisturbed = Runner(tmp_path_factory.mktemp("undisturbed"))
    undisturbed(num_total_samples=48)

    def fail(stage: Stage, candidates: Sequence[Candidate]) -> None:
        if stage is Stage.VALIDATE_COMPILE and candidates[0].index == 16:
            raise OSError("the machine went away")

    runner.bench.disturb = fail
    with pytest.raises(OSError, match="went away"):
        runner(num_total_samples=48)
    run = latest_run(runner.folder)
    assert run.state is RunState.INTERRUPTED
    runner.bench.disturb = lambda stage, candidates: None
    summary = runner(resume="")
    assert summary.run_id == run.run_id
    assert runner.programs() == undisturbed.programs()
    assert {key: n for key, n in runner.bench.done.items() if n > 1} == {}


def test_a_fault_of_the_machine_is_tried_again_and_a_hopeless_provider_is_not(runner: Runner) -> None:
    faults: list[Exception] = [EnvironmentFault("the server hung up")]

    def fail(stage: Stage, candidates: Sequence[Candidate]) -> None:
        if stage is Stage.LLM and faults:
            raise faults.pop()

    runner.bench.disturb = fail
    runner(num_total_samples=4)
    assert not faults
    faults += [EnvironmentFault("not reached"), HopelessProvider("the key is refused")]
    with pytest.raises(HopelessProvider, match="refused"):
        runner(num_total_samples=5)
    assert len(faults) == 1


def test_a_fault_of_the_disk_is_tried_again_where_the_work_finds_its_own_traces(runner: Runner) -> None:
    once = {Stage.SAMPLE, Stage.EXTRACT, Stage.FILTER, Stage.PERSIST}

    def fail(stage: Stage, candidates: Sequence[Candidate]) -> None:
        if stage in once:
            once.discard(stage)
            raise OSError("stale file handle")

    runner.bench.disturb = fail
    summary = runner(num_total_samples=4)
    assert not once
    assert summary.accepted == len(runner.programs()) > 0


def test_a_low_yield_is_told_after_the_round_that_shows_it(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, int]] = []
    monkeypatch.setattr(
        "flows.pipeline.artifacts.emit_event", lambda name, *, resource, payload: told.append(payload)
    )
    told_before: dict[int, int] = {}

    def watch(stage: Stage, candidates: Sequence[Candidate]) -> None:
        told_before.setdefault(candidates[0].attempt, len(told))

    runner.bench = Bench(is_bad=lambda candidate: True, disturb=watch)
    runner(num_total_samples=4, max_retries=2, yield_floor=0.5)
    assert told_before == {0: 0, 1: 1, 2: 1}
    assert [payload["attempted"] for payload in told] == [4]


def test_an_outage_is_not_an_answer_to_keep(runner: Runner) -> None:
    def outage(candidates: Sequence[Candidate], _: Manifest) -> list[Candidate]:
        return [c.judged(Verdict.fail(Stage.LLM, Category.PROVIDER_ERROR, "503")) for c in candidates]

    working, runner.bench = runner.bench, Bench(answer=outage)
    assert runner(num_total_samples=5, max_retries=0).rejected == {"PROVIDER_ERROR": 5}
    runner.bench = working
    assert runner(num_total_samples=5, max_retries=0).accepted > 0


def test_the_first_of_two_duplicates_stays_whatever_finishes_first(runner: Runner) -> None:
    order: list[int] = []

    def slow_first(stage: Stage, candidates: Sequence[Candidate]) -> None:
        if stage is Stage.VALIDATE_EAGER and candidates[0].index == 0:
            time.sleep(1)
        if stage is Stage.FILTER:
            order.append(candidates[0].index)

    runner.bench.disturb = slow_first
    runner(num_total_samples=40, max_retries=0, batch_size=10)
    assert order == [0, 10, 20, 30]


@pytest.mark.slow
def test_in_batch_mode_no_job_waits_for_another(runner: Runner) -> None:
    """Each may take a day, so all of them are handed over before the first has ended."""
    handed_over = threading.Barrier(20, timeout=120)

    def ask(candidates: Sequence[Candidate], manifest: Manifest) -> list[Candidate]:
        handed_over.wait()
        return Bench._answer(candidates, manifest)

    runner.bench.answer = ask
    summary = runner(num_total_samples=20, max_retries=0, batch_size=1, provider={"batch": True})
    assert summary.attempted == 20


def test_a_large_run_is_split_into_sub_flows(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.synth._MOST_CANDIDATES_A_FLOW", 20)
    summary = runner(num_total_samples=48, max_retries=0)
    assert summary.attempted == 48
    url = {"PREFECT_API_URL": os.environ["PREFECT_API_URL"]}
    with temporary_settings(url), get_client(sync_client=True) as client:
        recent = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=3)
    assert {run.name for run in recent} == {"part-r0-b0000", "part-r0-b0001", "part-r0-b0002"}


def test_within_a_sub_flow_progress_is_shown_batch_by_batch(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = threading.Event()
    monkeypatch.setattr("flows.synth._MOST_CANDIDATES_A_FLOW", 32)
    monkeypatch.setattr("flows.pipeline.artifacts.ProgressBar.show", lambda *_, **__: shown.set())

    def watch(stage: Stage, candidates: Sequence[Candidate]) -> None:
        if stage is Stage.PERSIST and candidates[0].index == 16:
            assert shown.wait(30)

    runner.bench.disturb = watch
    runner(num_total_samples=48, max_retries=0)


def test_goes_on_until_enough_are_accepted(runner: Runner) -> None:
    runner.bench.is_bad = lambda candidate: candidate.index % 3 > 0
    summary = runner(num_accepted=12, max_retries=0)
    assert summary.accepted >= 12
    assert not summary.short
    assert summary.attempted < 60


def test_stops_short_at_the_ceiling(runner: Runner) -> None:
    runner.bench.is_bad = lambda candidate: True
    summary = runner(num_accepted=10, num_total_samples=25, max_retries=0)
    assert (summary.attempted, summary.accepted, summary.short) == (25, 0, True)
