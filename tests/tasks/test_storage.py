"""Shards that travel through a folder or URL which both machines reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from synth_core.errors import EnvironmentFault
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


@pytest.mark.parametrize(
    "out_of_reach", ["a-file", "oss://bucket-of-a-package-that-is-missing", "nosuch://x"]
)
def test_storage_out_of_reach_is_a_fault_of_the_machine(out_of_reach: str, tmp_path: Path) -> None:
    shard = tmp_path / "llm" / "key.parquet"
    shard.parent.mkdir()
    shard.write_bytes(b"rows")
    (tmp_path / "a-file").touch()
    storage = out_of_reach if "://" in out_of_reach else str(tmp_path / out_of_reach)
    with pytest.raises(EnvironmentFault, match="cannot send"):
        send(shard, storage)
    with pytest.raises(EnvironmentFault, match="cannot fetch"):
        fetch(shard, storage)
