"""Which shards are final for a run: those of each batch that has left, named by the work they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from synth_core.atomic import write_atomic
from synth_core.store.runs import run_folder


def note_settled(
    output_dir: Path | str,
    run_id: str,
    keys: Mapping[str, str],
    *,
    round: int,  # noqa: A002  the word that Manifest and DESIGN use
    batch: int,
) -> None:
    """Note a batch's keys, work -> name of its shard; `EnvironmentFault` where the disk does not take it."""
    path = run_folder(output_dir, run_id) / "settled" / f"r{round:03d}-b{batch:06d}.json"
    write_atomic(path, json.dumps(keys).encode())


def read_settled(output_dir: Path | str, run_id: str) -> dict[str, str]:
    """What the run has settled so far, all batches together."""
    files = run_folder(output_dir, run_id).glob("settled/r*.json")  # not what a kill left under another name
    return {work: key for file in files for work, key in json.loads(file.read_bytes()).items()}
