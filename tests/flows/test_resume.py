"""What a run has persisted is final: a resume neither asks for it again nor contradicts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from simulated import Bench, Runner

from flows.prefect_server.locks import lock_run
from synth_core.records import Candidate, Category, Manifest, Stage, Verdict
from synth_core.store import RunState, latest_run, scan_ledger
from synth_core.store.pruning import Held, drop_shards

AN_OUTAGE: dict[str, Any] = {"num_total_samples": 8, "batch_size": 2, "max_retries": 1}


def out_at_first(candidates: Sequence[Candidate], manifest: Manifest) -> list[Candidate]:
    """Answers, but for one first attempt of each batch."""
    answered = Bench._answer(candidates, manifest)
    if manifest.round == 0:
        failed = Verdict.fail(Stage.LLM, Category.PROVIDER_ERROR, "503")
        answered[0] = candidates[0].judged(failed)
    return answered


def good(_: Candidate) -> bool:
    return False


def ledger(folder: Path) -> list[tuple[object, ...]]:
    rows = scan_ledger(folder).select("candidate_id", "accepted", "category", "program_name").collect()
    return sorted(rows.iter_rows())


def upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage is of another version from now on."""
    monkeypatch.setattr("tasks.cache.stage_version", lambda stage: f"new-{stage}")
    monkeypatch.setattr("tasks.stages.stage_version", lambda stage: f"new-{stage}")


@pytest.mark.parametrize("since", ["nothing", "upgrade", "move"])
def test_to_resume_a_completed_run_does_nothing(
    runner: Runner, since: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.bench = Bench(answer=out_at_first, is_bad=good)
    first = runner(**AN_OUTAGE)
    assert (first.attempted, first.accepted, first.rejected) == (12, 8, {"PROVIDER_ERROR": 4})
    rows, programs = ledger(runner.folder), runner.programs()
    if since == "upgrade":
        upgrade(monkeypatch)
    if since == "move":
        runner.folder = runner.folder.rename(runner.folder.with_name("moved"))
    runner.bench = Bench(is_bad=good)  # the provider answers again
    again = runner(resume="")
    assert runner.bench.done == {}
    assert (again.attempted, again.accepted, again.rejected) == (12, 8, first.rejected)
    assert (ledger(runner.folder), runner.programs()) == (rows, programs)


@pytest.mark.parametrize("since", ["nothing", "upgrade", "move", "prune", "edit"])
def test_further_attempts_fit_what_they_follow_from(
    runner: Runner,
    since: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    strategy = tmp_path_factory.mktemp("own") / "own.toml"
    strategy.write_bytes(Path("deployments/strategies/balanced.toml").read_bytes())
    monkeypatch.setattr("flows.pipeline.plan._SMALLEST", 2)
    options = {**AN_OUTAGE, "batch_size": 0, "strategy": str(strategy)}
    undisturbed = Runner(tmp_path_factory.mktemp("undisturbed"), Bench(answer=out_at_first, is_bad=good))
    undisturbed(**options)

    def fail(stage: Stage, candidates: Sequence[Candidate]) -> None:
        if stage is Stage.EXTRACT and (candidates[0].attempt, candidates[0].index) == (1, 4):
            raise RuntimeError("a mistake of ours")

    runner.bench = Bench(answer=out_at_first, is_bad=good, disturb=fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        runner(**options)
    assert latest_run(runner.folder).state is RunState.FAILED
    assert len(ledger(runner.folder)) == 10  # one batch of the second round is persisted
    if since == "upgrade":
        upgrade(monkeypatch)
    if since == "move":
        runner.folder = runner.folder.rename(runner.folder.with_name("moved"))
    if since == "prune":
        assert drop_shards(runner.folder, 0, lock_run) == (Held(0, 0), [latest_run(runner.folder).run_id])
    if since == "edit":
        strategy.write_text(strategy.read_text() + "\nshare = 2\n")
        monkeypatch.setattr("flows.pipeline.plan._SMALLEST", 3)
    runner.bench = Bench(is_bad=good)
    runner(resume="")
    assert {round_ for _, round_, _ in runner.bench.done} == {1}
    assert ledger(runner.folder) == ledger(undisturbed.folder)
    assert runner.programs() == undisturbed.programs()


def test_a_batch_that_another_run_had_elsewhere_is_entered_where_it_is_now(runner: Runner) -> None:
    """The second batch was one of the earlier run's second round."""
    shared: dict[str, Any] = {"num_total_samples": 4, "batch_size": 2}
    runner.bench = Bench(is_bad=lambda candidate: True)
    runner(num_accepted=2, max_retries=0, **shared)
    runner.bench = Bench(is_bad=lambda candidate: True)
    run = runner(max_retries=1, **shared)
    assert runner.bench.done[Stage.LLM, 0, "0000002.0"] == 0  # found
    assert runner.bench.done[Stage.FILTER, 0, "0000002.0"] == 1
    rows = scan_ledger(runner.folder, run.run_id).select("candidate_id", "round", "batch").collect()
    first, again = ([(f"000000{i}.{attempt}", attempt, i // 2) for i in range(4)] for attempt in (0, 1))
    assert sorted(rows.iter_rows()) == sorted(first + again)
