"""What a run has persisted is final: a resume neither asks for it again nor contradicts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from simulated import Bench, Runner

from synth_core.records import Candidate, Category, Manifest, Stage, Verdict
from synth_core.store import RunState, latest_run, scan_ledger

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


@pytest.mark.parametrize("since", ["nothing", "upgrade", "move"])
def test_further_attempts_fit_what_they_follow_from(
    runner: Runner,
    since: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    undisturbed = Runner(tmp_path_factory.mktemp("undisturbed"), Bench(answer=out_at_first, is_bad=good))
    undisturbed(**AN_OUTAGE)

    def fail(stage: Stage, candidates: Sequence[Candidate]) -> None:
        if stage is Stage.EXTRACT and (candidates[0].attempt, candidates[0].index) == (1, 4):
            raise RuntimeError("a mistake of ours")

    runner.bench = Bench(answer=out_at_first, is_bad=good, disturb=fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        runner(**AN_OUTAGE)
    assert latest_run(runner.folder).state is RunState.FAILED
    assert len(ledger(runner.folder)) == 10  # one batch of the second round is persisted
    if since == "upgrade":
        upgrade(monkeypatch)
    if since == "move":
        runner.folder = runner.folder.rename(runner.folder.with_name("moved"))
    runner.bench = Bench(is_bad=good)
    runner(resume="")
    assert {round_ for _, round_, _ in runner.bench.done} == {1}
    assert ledger(runner.folder) == ledger(undisturbed.folder)
    assert runner.programs() == undisturbed.programs()
