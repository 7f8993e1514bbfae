"""What counts as the same work."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from synth_core.records import Manifest, Stage
from synth_core.settings import Settings
from synth_core.store import read_settled
from tasks.cache import Batch, OperatorSignatures, Shelf
from tasks.versions import stage_version

UPSTREAM = Manifest(
    path="x", digest="d" * 64, signature="0123456789abcdef", stage=Stage.SAMPLE, total=3, alive=3
)
SETTINGS = Settings(seed=1, output_dir="/somewhere")


def key(stage: Stage, run_id: str = "run", upstream: Batch | Manifest = UPSTREAM, **changes: object) -> str:
    return Shelf(SETTINGS.model_copy(update=changes), run_id).key(stage, upstream)


@pytest.mark.parametrize("stage", Stage)
def test_names_a_file_after_stage_version_and_operators(stage: Stage) -> None:
    name = key(stage)
    assert name == Path(name).name
    assert name.startswith(f"{stage}-{stage_version(stage)}-{UPSTREAM.signature}-")


@pytest.mark.parametrize("stage", Stage)
def test_what_cannot_change_the_outcome_leaves_the_key_alone(stage: Stage) -> None:
    provider = SETTINGS.provider.model_copy(update={"concurrency": 3, "retries": 0, "timeout": 1.0})
    changed = key(stage, num_worker=9, batch_size=5, runner="dask", num_total_samples=7, provider=provider)
    assert changed == key(stage)


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"provider": SETTINGS.provider.model_copy(update={"model_id": "other"})}, {Stage.LLM}),
        (
            {"validation": SETTINGS.validation.model_copy(update={"skip_checks": ("finite",)})},
            {Stage.VALIDATE_EAGER, Stage.VALIDATE_COMPILE},
        ),
    ],
)
def test_what_can_change_it_changes_the_key_of_its_stage(change: dict[str, Any], stages: set[Stage]) -> None:
    assert {stage for stage in Stage if key(stage, **change) != key(stage)} == stages


def test_what_reads_the_folder_belongs_to_a_run() -> None:
    own = {stage for stage in Stage if key(stage, run_id="other") != key(stage)}
    assert own == {Stage.SAMPLE, Stage.FILTER, Stage.PERSIST}


def test_what_came_before_is_part_of_the_key() -> None:
    other = UPSTREAM.model_copy(update={"digest": "e" * 64})
    assert all(key(stage, upstream=other) != key(stage) for stage in Stage)


def test_a_stage_has_the_version_of_what_decides_its_work() -> None:
    assert stage_version(Stage.VALIDATE_EAGER) == stage_version(Stage.VALIDATE_COMPILE)
    assert len({stage_version(stage) for stage in Stage}) == len(Stage) - 2  # and filter is as persist


def test_a_batch_is_its_strategy_positions_and_sources() -> None:
    batch = Batch(strategy="a", parameters="{}", start=0, stop=8)
    assert batch.digest == batch.model_copy(update={"batch": 3, "round": 1}).digest
    assert batch.digest != batch.model_copy(update={"stop": 9}).digest
    assert batch.digest != batch.model_copy(update={"sources": (UPSTREAM,)}).digest


def settled_batch(tmp_path: Path, total: int = 3) -> tuple[Batch, list[Manifest]]:
    """A batch that has passed all stages, and its shards; `total` candidates were left after the LLM."""
    batch, shelf = Batch(strategy="a", parameters="{}", stop=3), shelf_in(tmp_path)
    manifests: list[Manifest] = []
    for stage in Stage:
        left = 3 if stage in (Stage.SAMPLE, Stage.PROMPT) else total
        shard = shelf.shard(stage, shelf.key(stage, manifests[-1] if manifests else batch))
        shard.parent.mkdir(parents=True)
        shard.touch()
        manifests.append(Manifest(path=str(shard), digest=f"{stage}", stage=stage, total=left, alive=left))
    return batch, manifests


def shelf_in(folder: Path) -> Shelf:
    settings = Settings(seed=1, output_dir=str(folder))
    return Shelf(settings, "run", settled=read_settled(folder, "run"))


def test_a_settled_batch_keeps_its_shards_while_they_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, manifests = settled_batch(tmp_path)
    shelf_in(tmp_path).settle(batch, manifests)
    monkeypatch.setattr("tasks.cache.stage_version", lambda stage: "new")
    shelf = shelf_in(tmp_path)
    upstreams: list[Batch | Manifest] = [batch, *manifests[:-1]]
    for manifest, upstream in zip(manifests, upstreams, strict=True):
        path = Path(manifest.path)
        assert shelf.shard(manifest.stage, shelf.key(manifest.stage, upstream)) == path
        path.unlink()
        assert shelf.key(manifest.stage, upstream).startswith(f"{manifest.stage}-new-")


def test_a_batch_that_a_budget_cut_short_stays_open(tmp_path: Path) -> None:
    shelf_in(tmp_path).settle(*settled_batch(tmp_path, total=2))
    assert read_settled(tmp_path, "run") == {}


def record_name(shelf: Shelf, upstream: Manifest) -> str:
    policy = OperatorSignatures(stage=Stage.LLM, shelf=shelf)
    return policy.compute_key(None, {"upstream": upstream}, {})  # type: ignore[arg-type]  # it reads inputs only


def test_a_record_without_its_shard_is_forgotten(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    record = shelf.results / record_name(shelf, UPSTREAM)
    shard = shelf.shard(Stage.LLM, shelf.key(Stage.LLM, UPSTREAM))
    for path in (record, shard):
        path.parent.mkdir(parents=True)
        path.touch()
    record_name(shelf, UPSTREAM)
    assert record.exists()
    shard.unlink()
    record_name(shelf, UPSTREAM)
    assert not record.exists()


def test_a_record_is_of_one_place_in_a_run_and_a_shard_of_none(tmp_path: Path) -> None:
    shelf, elsewhere = shelf_in(tmp_path), UPSTREAM.model_copy(update={"round": 1})
    assert shelf.key(Stage.LLM, elsewhere) == shelf.key(Stage.LLM, UPSTREAM)
    assert record_name(shelf, elsewhere) != record_name(shelf, UPSTREAM)


def test_a_shard_that_is_found_again_counts_as_just_used(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    shard = shelf.shard(Stage.LLM, shelf.key(Stage.LLM, UPSTREAM))
    shard.parent.mkdir(parents=True)
    shard.touch()
    os.utime(shard, (0, 0))
    record_name(shelf, UPSTREAM)
    assert time.time() - shard.stat().st_mtime < 60
