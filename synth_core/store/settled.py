"""Notes which shards are final for a run: those of every batch that has passed all stages."""

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
    """Write the shard names of one batch.

    keys: work (a stage and the digest of its input) -> name of the shard.
    Raises `EnvironmentFault` if the file cannot be written.
    """
    path = run_folder(output_dir, run_id) / "settled" / f"r{round:03d}-b{batch:06d}.json"
    write_atomic(path, json.dumps(keys).encode())


def read_settled(output_dir: Path | str, run_id: str) -> dict[str, str]:
    """The notes of all batches of a run, merged: work -> name of the shard."""
    files = run_folder(output_dir, run_id).glob("settled/r*.json")  # `r`: skips temporary files
    return {work: key for file in files for work, key in json.loads(file.read_bytes()).items()}
