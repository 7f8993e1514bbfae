"""Shards that travel through a folder or URL which both machines reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from synth_core.errors import EnvironmentFault
from synth_core.records import Stage
from synth_core.settings import Settings
from tasks.cache import Shelf
from tasks.storage import fetch, send


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_what_one_machine_sends_another_fetches(kind: str, tmp_path: Path) -> None:
    storage = str(tmp_path / "shared") if kind == "folder" else f"memory://{tmp_path.name}"
    here, there = tmp_path / "here/llm/key.parquet", tmp_path / "there/llm/key.parquet"
    here.parent.mkdir(parents=True)
    here.write_bytes(b"rows")
    assert not fetch(there, storage)
    send(here, storage)
    assert fetch(there, storage)
    assert there.read_bytes() == b"rows"


def test_storage_out_of_reach_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    shard = tmp_path / "llm" / "key.parquet"
    shard.parent.mkdir()
    shard.write_bytes(b"rows")
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="cannot send"):
        send(shard, str(tmp_path / "file"))


def test_only_validation_looks_for_its_shards_in_the_storage(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"output_dir": str(tmp_path / "out"), "validation": {"pool_storage": str(tmp_path / "shared")}}
    )
    shelf = Shelf(settings, "run")
    for stage in (Stage.EXTRACT, Stage.VALIDATE_EAGER):
        shard = shelf.shard(stage, "key")
        shard.parent.mkdir(parents=True)
        shard.write_bytes(b"rows")
        send(shard, settings.validation.pool_storage)
        shard.unlink()
    assert shelf.find(Stage.EXTRACT, "key") is None
    assert shelf.find(Stage.VALIDATE_EAGER, "key") == shelf.shard(Stage.VALIDATE_EAGER, "key")
