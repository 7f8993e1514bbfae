"""`synth cache`: what is of no use any more goes, what a run may still need stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.cli import app as cli
from flows.pipeline.plan import plan_resume
from flows.prefect_server.locks import lock_run
from synth_core.errors import UsageError
from synth_core.settings import Settings
from synth_core.store import Run, RunState, load_run, note_settled, plan_run, save_run


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def ended_run(out: Path, state: RunState, days_ago: int) -> Run:
    """A run that worked for two hours."""
    ended = datetime.now(UTC) - timedelta(days=days_ago)
    planned = plan_run(Settings(output_dir=str(out)), now=ended - timedelta(hours=2))
    return save_run(planned.model_copy(update={"state": state, "ended": ended}))


def used(path: Path, hours_ago: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("rows")
    when = time.time() - hours_ago * 3600
    os.utime(path, (when, when))
    return path


def files(out: Path) -> set[Path]:
    return {path for path in out.rglob("*") if path.is_file() and path.name != "lock"}


def prune(cache: Path, *options: str) -> None:
    assert cli.run(["cache", "prune", "--cache-dir", str(cache), *options]) == cli.DONE


def test_shards_go_with_their_completed_runs_and_stay_with_those_that_can_go_on(
    cache: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    completed = ended_run(out, RunState.COMPLETED, 90)
    failed = ended_run(out, RunState.FAILED, 60)
    recent = ended_run(out, RunState.COMPLETED, 1)
    unreadable = ended_run(out, RunState.INTERRUPTED, 80)
    (unreadable.folder / "run.json").write_text('{"of": "another version"}')
    shards, results = out / ".synth/shards/llm", out / ".synth/results/0"
    note_settled(out, failed.run_id, {"llm:x": "shared"}, round=0, batch=0)
    note_settled(out, unreadable.run_id, {"llm:y": "of-another-version"}, round=0, batch=0)
    kept = {
        used(shards / "shared.parquet", 90 * 24 + 1),  # made by the completed run, settled for the failed one
        used(shards / "in-flight.parquet", 60 * 24 + 1),  # of the failed one, not settled
        used(results / "in-flight-r000-b000001", 60 * 24 + 1),
        used(shards / "of-another-version.parquet", 80 * 24 + 1),
        used(shards / "recent.parquet", 25),
        used(out / "SynthModel_ReLU.py", 90 * 24),
        used(completed.folder / "ledger/r000-b000000.parquet", 90 * 24),
        *out.glob(".synth/runs/*/run.json"),
        *out.glob(".synth/runs/*/settled/*"),
    }
    used(shards / "own.parquet", 90 * 24 + 1)
    used(results / "own-r000-b000000", 90 * 24 + 1)
    used(shards / ".tmp-killed.tmp", 90 * 24 + 1)
    before = files(out)
    prune(cache)
    prune(cache, "--output-dir", str(out), "--model", "m")
    assert files(out) == before
    prune(cache, "--output-dir", str(out))
    assert files(out) == kept
    said = capsys.readouterr().out
    assert "deleted 3 shards and results" in said
    assert {failed.run_id, unreadable.run_id} <= set(said.replace(",", "").split())
    assert not {completed.run_id, recent.run_id} & set(said.replace(",", "").split())
    with pytest.raises(UsageError, match="its shards were deleted"), plan_resume(out, completed.run_id):
        pass
    with plan_resume(out, recent.run_id) as plan:
        assert plan.run == recent
    assert load_run(out, failed.run_id) == failed


def test_a_run_that_was_killed_keeps_its_own_and_no_later_shards(cache: Path, out: Path) -> None:
    killed = ended_run(out, RunState.RUNNING, 90)
    save_run(killed.model_copy(update={"ended": None}))
    hours = 90 * 24
    os.utime(killed.folder / "run.json", (time.time() - hours * 3600,) * 2)
    own = used(out / ".synth/shards/llm/own.parquet", hours - 0.5)
    later = used(out / ".synth/shards/llm/later.parquet", hours - 48)
    with lock_run(killed.folder) as held:
        assert held
        prune(cache, "--output-dir", str(out))
        assert later.exists(), "as long as it is at work, what is made may be its own"
    prune(cache, "--output-dir", str(out))
    assert own.exists()
    assert not later.exists()


def test_no_prune_comes_between_the_plan_of_a_resume_and_its_work(cache: Path, out: Path) -> None:
    run = ended_run(out, RunState.COMPLETED, 90)
    with plan_resume(out, run.run_id):
        prune(cache, "--output-dir", str(out))
    assert not load_run(out, run.run_id).pruned
    prune(cache, "--output-dir", str(out))
    assert load_run(out, run.run_id).pruned


def test_a_list_says_what_the_shards_of_a_folder_take(
    cache: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used(out / ".synth/shards/llm/a.parquet", 1)
    options = ["--cache-dir", str(cache), "--output-dir", str(out), "--json"]
    assert cli.run(["cache", "list", *options]) == cli.DONE
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"kind": "shards", "files": 1, "bytes": 4}


@pytest.mark.parametrize(
    "write",
    [
        "validation.verdicts import VerdictCache; VerdictCache(folder).keep('key', {'detail': 'x' * 10_000})",
        "providers.batch import JobFolder; JobFolder(Path(folder)).note('label', '', ['x' * 10_000])",
    ],
)
def test_a_full_disk_leaves_nothing_half_written(cache: Path, write: str) -> None:
    """A file size limit of the kernel stands in for the full disk."""
    script = (
        "import resource, signal, sys; from pathlib import Path; folder = sys.argv[1]\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        f"from synth_core.{write}"
    )
    subprocess.run([sys.executable, "-B", "-c", script, str(cache)], capture_output=True)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert cache.exists()


def test_old_verdicts_go_with_what_was_left_half_written(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("old.json", "tmpold", ".tmp-old.tmp"):
        used(cache / "verdicts/ab" / name, 31 * 24)
    young = used(cache / "verdicts/ab/young.json", 1)
    prune(cache)
    assert list(cache.glob("verdicts/*/*")) == [young]
    assert "deleted 0 answers and 1 verdicts" in capsys.readouterr().out
