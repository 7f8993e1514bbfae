"""`synth export`: the accepted programs of a folder as one dataset file."""

from __future__ import annotations

from pathlib import Path

from synth_core.store.export import export_dataset


def export(output_dir: str, to: Path, run_id: str) -> None:
    """Write the dataset and print its number of programs. The ending of `to` says .parquet or .jsonl."""
    to = to.expanduser()
    count = export_dataset(output_dir, to, run_id=run_id or None)
    print(f"{count} programs in {to}")
