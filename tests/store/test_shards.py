from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from synth_core.errors import EnvironmentFault
from synth_core.records import (
    Candidate,
    Category,
    Completion,
    Graph,
    Node,
    Outcome,
    Program,
    Specification,
    Stage,
    Telemetry,
    Tier,
    Usage,
    Verdict,
)
from synth_core.store import read_shard, write_shard


def candidate(index: int = 0, *verdicts: Verdict, **parts: object) -> Candidate:
    specification = Specification(
        operators=("Conv2d", "ReLU"), strategy="balanced", seed=2**63, provider="constructive",
        prompt="ordered", temperature=0.3,
    )  # fmt: skip
    return Candidate(index=index, specification=specification, verdicts=verdicts).model_copy(update=parts)


FULL = candidate(
    1,
    Verdict.ok(Stage.VALIDATE_EAGER, tier=Tier.A, torch="2.13.0", warnings=("same-shape",)),
    Verdict.ok(Stage.PERSIST),
    completion=Completion(outcome=Outcome.OK, text="```\nüλ\0\n```", requested_model="m"),
    program=Program.of("SynthModel_Conv2d", "class SynthModel_Conv2d: ..."),
    graph=Graph(nodes=(Node(name="x", kind="input", shape=(2, 3)),), operators=("Conv2d",)),
    telemetry=Telemetry(usage=Usage(input_tokens=7, cost_usd=0.5), calls=2, seconds={"validate-eager": 0.25}),
)
DROPPED = candidate(2, Verdict.fail(Stage.EXTRACT, Category.NO_CODE, "no fenced block", check="extract"))


def test_a_shard_gives_back_the_very_candidates(tmp_path: Path) -> None:
    candidates = [candidate(0), FULL, DROPPED]
    write_shard(tmp_path / "deep" / "a.parquet", candidates, stage=Stage.EXTRACT)
    assert read_shard(tmp_path / "deep" / "a.parquet") == candidates


def test_an_empty_batch_is_a_shard_too(tmp_path: Path) -> None:
    manifest = write_shard(tmp_path / "a.parquet", [], stage=Stage.LLM)
    assert (manifest.total, manifest.alive, read_shard(manifest.path)) == (0, 0, [])


def test_the_manifest_counts_what_this_stage_dropped(tmp_path: Path) -> None:
    earlier = candidate(3, Verdict.fail(Stage.LLM, Category.REFUSAL, "no"))
    manifest = write_shard(tmp_path / "a.parquet", [FULL, DROPPED, earlier], stage=Stage.EXTRACT, batch=4)
    assert (manifest.total, manifest.alive, manifest.failed, manifest.batch) == (3, 1, {"NO_CODE": 1}, 4)


def test_the_digest_leaves_telemetry_out_and_takes_all_else_in(tmp_path: Path) -> None:
    def digest(one: Candidate) -> str:
        return write_shard(tmp_path / "a.parquet", [one], stage=Stage.LLM).digest

    slower = FULL.model_copy(update={"telemetry": Telemetry(seconds={"llm": 9.0})})
    renamed = FULL.model_copy(update={"program": Program.of("Other", "class Other: ...")})
    assert digest(FULL) == digest(slower) != digest(renamed)


def test_the_columns_answer_without_the_record(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.parquet", [FULL, DROPPED], stage=Stage.PERSIST)
    full, dropped = pl.read_parquet(tmp_path / "a.parquet").drop("record").to_dicts()
    assert full["accepted"] is True
    assert full["realised"] == ["Conv2d"]
    assert full["seed"] == 2**63
    assert (full["tier"], full["torch"], full["warnings"]) == ("A", "2.13.0", ["same-shape"])
    assert (full["cost_usd"], full["calls"], full["seconds"]["validate_eager"]) == (0.5, 2, 0.25)
    assert (dropped["accepted"], dropped["stage"], dropped["category"]) == (False, "extract", "NO_CODE")
    assert dropped["realised"] is None
    assert dropped["cost_usd"] is None


def test_a_torn_or_missing_shard_is_our_fault_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 half")
    for name in ("torn.parquet", "absent.parquet"):
        with pytest.raises(EnvironmentFault, match=name):
            read_shard(tmp_path / name)


def test_a_full_disk_leaves_the_earlier_shard_intact(tmp_path: Path) -> None:
    """A file size limit of the kernel stands in for the full disk: write(2) fails half-way just the same."""
    path = tmp_path / "a.parquet"
    write_shard(path, [FULL], stage=Stage.LLM)
    script = (
        "import resource, signal, sys; from synth_core.store import *; from synth_core.errors import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: write_shard(sys.argv[1], read_shard(sys.argv[1]) * 2, stage='llm')\n"
        "except EnvironmentFault as fault: print(fault); sys.exit(7)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert run.returncode == 7, run.stderr
    assert "cannot write" in run.stdout
    assert read_shard(path) == [FULL]
    assert os.listdir(tmp_path) == ["a.parquet"]
