from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from synth_core.atomic import write_atomic
from synth_core.errors import EnvironmentFault, UsageError
from synth_core.prompting import render_prompts
from synth_core.records import Candidate, Category, Graph, Program, Specification, Stage, Verdict
from synth_core.settings import ProviderSettings, Settings
from synth_core.store import (
    Attempts,
    Run,
    RunState,
    append_ledger,
    continue_run,
    finish_run,
    latest_run,
    latest_unfinished_run,
    load_run,
    persist,
    plan_run,
    read_settled,
    save_run,
    scan_ledger,
)
from synth_core.strategies import load_strategy

SOURCE = "import torch.nn as nn\n\n\nclass SynthModel_ReLU(nn.Module):\n    pass\n"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return save_run(plan_run(Settings(output_dir=str(tmp_path / "out"), seed=7)))


def candidate(index: int, source: str = SOURCE, *, failed: bool = False) -> Candidate:
    specification = Specification(
        operators=("ReLU",), strategy="balanced", seed=index, provider="p", prompt="ordered", temperature=0.0
    )
    verdict = Verdict.fail(Stage.FILTER, Category.DUPLICATE, "held") if failed else Verdict.ok(Stage.FILTER)
    return Candidate(
        index=index,
        specification=specification,
        program=Program.of("SynthModel_ReLU", source),
        graph=Graph(nodes=(), operators=("ReLU",)),
        verdicts=(verdict,),
    )


def test_a_run_is_found_again_with_all_it_was_told(run: Run) -> None:
    assert load_run(run.output_dir, run.run_id) == run == latest_run(run.output_dir)
    assert run.settings.seed == 7
    assert {"synth", "python", "torch"} <= run.versions.keys()


def test_a_moved_folder_still_resumes_where_it_is(run: Run, tmp_path: Path) -> None:
    run.output_dir.rename(tmp_path / "moved")
    assert load_run(tmp_path / "moved", run.run_id).output_dir == tmp_path / "moved"


def test_run_ids_sort_by_time(tmp_path: Path) -> None:
    settings = Settings(output_dir=str(tmp_path))
    late, early = (
        save_run(plan_run(settings, now=datetime(2026, 11, day, tzinfo=UTC))).run_id for day in (25, 3)
    )  # fmt: skip
    assert early < late
    assert late.startswith("20261125-000000-")
    assert latest_run(tmp_path).run_id == late


def test_the_newest_unfinished_run_is_offered_for_resume(run: Run) -> None:
    assert latest_unfinished_run(run.output_dir) == run
    interrupted = finish_run(run, RunState.INTERRUPTED)
    assert latest_unfinished_run(run.output_dir) == interrupted
    finish_run(continue_run(interrupted), RunState.COMPLETED)
    assert latest_unfinished_run(run.output_dir) is None


def test_mistakes_get_one_clear_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"no run 'x'.*{run.run_id}"):
        load_run(run.output_dir, "x")
    with pytest.raises(UsageError, match="contains no run"):
        latest_run(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(UsageError, match="is not a folder"):
            save_run(plan_run(Settings(output_dir=str(tmp_path / place))))


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    """Tried as an ordinary user, for root writes anywhere; by relative paths: tmp_path is private."""
    script = (
        "import os, sys; from pathlib import Path; from synth_core.errors import UsageError\n"
        "from synth_core.store.runs import check_writable\n"
        "os.geteuid() == 0 and os.setuid(65534)\n"
        "try: check_writable(Path(sys.argv[1]))\n"
        "except UsageError as error: print(error)"
    )
    tmp_path.chmod(0o755)
    (tmp_path / "locked").mkdir(mode=0o555)
    for place in ("locked", "locked/new"):
        command = [sys.executable, "-c", script, place]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert f"output_dir {place} cannot be" in done.stdout, done.stderr


def test_a_run_is_planned_once_wherever_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("there", "elsewhere"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "there")
    base = load_strategy("balanced")[0].model_dump(exclude={"name", "provider", "operators"})
    own = Path("own.toml")
    own.write_text(
        "".join(f"{key} = {json.dumps(value)}\n" for key, value in {**base, "prompt": "p.j2"}.items())
    )
    Path("p.j2").write_text("{{ operators }}")
    settings = Settings(strategy="own.toml", provider=ProviderSettings(ca_bundle="ca.pem"), output_dir="out")
    planned = save_run(plan_run(settings)).planned()
    own.write_text(own.read_text().replace('description = "', 'description = "Another: '))
    output_dir = Path("out").absolute()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = latest_run(output_dir)
    assert run.planned() == planned
    assert planned[0][0].prompt == str(tmp_path / "there/p.j2")
    named = (run.settings.strategy, run.settings.provider.ca_bundle)
    assert named == (str(tmp_path / "there/own.toml"), str(tmp_path / "there/ca.pem"))
    (tmp_path / "there/p.j2").unlink()
    specification = candidate(0).specification.model_copy(update={"prompt": planned[0][0].prompt})
    (asked,) = render_prompts([Candidate(index=0, specification=specification)], run.prompts)
    assert asked.prompt
    assert asked.prompt.text == "('ReLU',)"
    old = run.model_copy(update={"strategies": ()})  # from before a run recorded them
    assert old.planned()[0][0].description.startswith("Another: ")


def left_by_a_kill(run: Run) -> None:
    """A writer dies while it puts a batch into the ledger."""
    script = (
        "import os, signal, sys; from synth_core.store import *\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "append_ledger(load_run(*sys.argv[1:]), [], round=0, batch=9)"
    )
    command = [sys.executable, "-c", script, str(run.output_dir), run.run_id]
    assert subprocess.run(command).returncode == -signal.SIGKILL


def test_what_a_kill_left_half_written_is_nothing(run: Run) -> None:
    left_by_a_kill(run)
    (run.folder / "settled").mkdir()
    for name in ("ledger/.tmp-empty.parquet", "settled/.tmp-empty.json"):  # as older versions named it
        (run.folder / name).touch()
    append_ledger(run, [candidate(0)], round=0, batch=0)
    assert scan_ledger(run.output_dir).collect().height == 1
    assert len(Attempts(run.output_dir).fresh()) == 1
    assert read_settled(run.output_dir, run.run_id) == {}
    assert len(list(run.folder.glob("*/*"))) == 4
    continue_run(run)
    assert [path.name for path in run.folder.glob("*/*")] == ["r000-b000000.parquet"]


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_only_a_file_system_that_cannot_sync_folders_is_spared(
    run: Run, monkeypatch: pytest.MonkeyPatch, code: int, passes: bool
) -> None:
    def sync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", sync)
    expected = contextlib.nullcontext() if passes else pytest.raises(EnvironmentFault, match="cannot write")
    with expected:
        persist([candidate(0)], run)
    with expected:
        save_run(run)


def test_what_could_not_be_read_is_read_the_next_time(run: Run) -> None:
    append_ledger(run, [candidate(0)], round=0, batch=0)
    torn = run.folder / "ledger" / "r000-b000001.parquet"
    torn.symlink_to("gone")
    attempts = Attempts(run.output_dir)
    with pytest.raises(OSError, match="No such file"):
        attempts.fresh()
    torn.unlink()
    assert len(attempts.fresh()) == 1


def test_attempts_are_read_once_each(run: Run) -> None:
    attempts = Attempts(run.output_dir)
    assert attempts.fresh() == []
    append_ledger(run, [candidate(0), candidate(1, failed=True)], round=0, batch=0)
    assert [accepted for _, accepted in attempts.fresh()] == [False, False]  # none is persisted yet
    append_ledger(run, persist([candidate(2)], run), round=0, batch=1)
    assert attempts.fresh() == [(["ReLU"], True)]
    assert attempts.fresh() == []


def test_the_ledger_keeps_every_candidate_with_its_run(run: Run) -> None:
    append_ledger(run, [candidate(0), candidate(1, failed=True)], round=0, batch=0)
    append_ledger(run, [candidate(2)], round=0, batch=1)
    append_ledger(run, [candidate(2)], round=0, batch=1)  # a resumed task writes it again
    rows = scan_ledger(run.output_dir, run.run_id).drop("record").collect().to_dicts()
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert {row["run_id"] for row in rows} == {run.run_id}
    assert (rows[1]["category"], rows[1]["detail"]) == ("DUPLICATE", "held")


def test_a_folder_s_ledger_spans_its_runs(run: Run) -> None:
    assert scan_ledger(run.output_dir).collect().is_empty()
    other = save_run(plan_run(run.settings))
    for each in (run, other):
        append_ledger(each, [candidate(0)], round=0, batch=0)
    assert scan_ledger(run.output_dir).collect()["run_id"].sort().to_list() == sorted(
        [run.run_id, other.run_id]
    )
    assert scan_ledger(run.output_dir, other.run_id).collect()["run_id"].to_list() == [other.run_id]


def test_a_program_is_written_byte_for_byte_and_only_if_alive(run: Run) -> None:
    kept, dropped = persist([candidate(0), candidate(1, failed=True)], run)
    assert kept.passed(Stage.PERSIST)
    assert not dropped.passed(Stage.PERSIST)
    assert [path.name for path in run.output_dir.glob("*.py")] == ["SynthModel_ReLU.py"]
    assert (run.output_dir / "SynthModel_ReLU.py").read_bytes() == SOURCE.encode()


def test_a_namesake_takes_another_name_and_the_first_stays(run: Run) -> None:
    other = SOURCE.replace("pass", "scale = 2")
    first, second = persist([candidate(0), candidate(1, other)], run)
    assert first.program
    assert second.program
    assert second.program.name.startswith("SynthModel_ReLU_")
    assert f"class {second.program.name}(nn.Module)" in second.program.source
    assert (run.output_dir / f"{second.program.name}.py").read_text() == second.program.source
    assert (run.output_dir / "SynthModel_ReLU.py").read_text() == SOURCE


def test_persisting_again_changes_nothing(run: Run) -> None:
    batch = [candidate(0), candidate(1, SOURCE.replace("pass", "scale = 2"))]

    def programs() -> list[Program | None]:
        return [one.program for one in persist(batch, run)]

    assert programs() == programs()
    assert len(list(run.output_dir.glob("*.py"))) == 2


def test_a_vanished_folder_is_our_fault_in_one_line(run: Run) -> None:
    (run.output_dir / ".synth").rename(run.output_dir / "gone")
    with pytest.raises(EnvironmentFault, match="cannot write"):
        persist([candidate(0)], run)
