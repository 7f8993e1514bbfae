from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from synth_core.errors import UsageError
from synth_core.records import (
    Candidate,
    Category,
    Completion,
    GpuSizes,
    Graph,
    Outcome,
    Program,
    Specification,
    Stage,
    Verdict,
)
from synth_core.settings import Settings
from synth_core.store import Run, append_ledger, export_dataset, persist, plan_run, save_run


def candidate(index: int, name: str, *, failed: bool = False) -> Candidate:
    specification = Specification(
        operators=("ReLU",), strategy="balanced", seed=index, provider="p", prompt="ordered", temperature=0.0
    )
    verdict = Verdict.fail(Stage.FILTER, Category.DUPLICATE, "held") if failed else Verdict.ok(Stage.FILTER)
    source = f"class {name}:\n    '''λ \"quoted\" \\ back\\nslash\t{{}}'''\n"
    return Candidate(
        index=index,
        specification=specification,
        program=Program.of(name, source),
        graph=Graph(nodes=(), operators=("ReLU",)),
        verdicts=(verdict,),
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = save_run(plan_run(Settings(output_dir=str(tmp_path / "out"), seed=7)))
    batch = [candidate(0, "A"), candidate(1, "B"), candidate(2, "C", failed=True)]
    append_ledger(run, persist(batch, run), round=0, batch=0)
    return run


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_the_dataset_holds_the_very_text_of_the_files(run: Run, tmp_path: Path, ending: str) -> None:
    target = tmp_path / "new" / f"set.{ending}"
    assert export_dataset(run.output_dir, target) == 2
    rows = pl.read_parquet(target).to_dicts() if ending == "parquet" else [
        json.loads(line) for line in target.read_text().splitlines()
    ]  # fmt: skip
    assert [row["module_name"] for row in rows] == ["A", "B"]
    for row in rows:
        assert row["python_code"] == (run.output_dir / f"{row['module_name']}.py").read_text()
        assert (row["synthetic"], row["operators"], row["run_id"]) == (True, ["ReLU"], run.run_id)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_identifiers_are_the_program_s_own(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_dataset(run.output_dir, tmp_path / f"{name}.parquet")
    one, two = (pl.read_parquet(tmp_path / f"{name}.parquet")["uuid"].to_list() for name in ("one", "two"))
    assert one == two
    assert len(set(one)) == 2


def test_a_program_at_gpu_sizes_stands_beside_the_proved_one(tmp_path: Path) -> None:
    run = save_run(plan_run(Settings(output_dir=str(tmp_path / "out"), seed=7)))
    program = Program.of("A", "class A:\n    pass\n\n\nbatch_size = 4\nwidth = 16\n")
    sizes = GpuSizes(constants={"batch_size": 64, "width": 128}, flops=10, bytes=4, intensity=2.5)
    completion = Completion(outcome=Outcome.OK, requested_model="constructive", sizes=sizes)
    given = candidate(0, "A").model_copy(update={"program": program, "completion": completion})
    append_ledger(run, persist([given, candidate(1, "B")], run), round=0, batch=0)
    assert export_dataset(run.output_dir, tmp_path / "set.parquet") == 2
    with_sizes, without = pl.read_parquet(tmp_path / "set.parquet").to_dicts()
    assert with_sizes["python_code"] == program.source
    assert with_sizes["bench_code"] == "class A:\n    pass\n\n\nbatch_size = 64\nwidth = 128\n"
    assert (with_sizes["bench_flops"], with_sizes["bench_intensity"]) == (10, 2.5)
    assert (without["bench_code"], without["bench_bytes"]) == (None, None)


def test_a_deleted_program_stays_out_and_one_that_two_runs_know_counts_once(run: Run, tmp_path: Path) -> None:
    (run.output_dir / "B.py").unlink()
    other = save_run(plan_run(run.settings))
    append_ledger(other, persist([candidate(0, "A")], other), round=0, batch=0)
    assert export_dataset(run.output_dir, tmp_path / "set.jsonl") == 1


def test_mistakes_get_one_clear_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.parquet or a \.jsonl"):
        export_dataset(run.output_dir, tmp_path / "set.csv")
    with pytest.raises(UsageError, match="no accepted program"):
        export_dataset(tmp_path, tmp_path / "set.jsonl")
