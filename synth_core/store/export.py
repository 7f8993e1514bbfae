"""The accepted programs of a folder as one dataset file, in the columns that KernelBook made common."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

import polars as pl

from synth_core.errors import EnvironmentFault, UsageError
from synth_core.store.ledger import scan_ledger

# A fixed namespace, so that a program has the same identifier in every export.
_NAMESPACE = uuid.UUID("6f0b4d8e-55a6-4d0e-9b0a-6a3c1d2f7e10")
_PROGRAM = pl.Struct({"program": pl.Struct({"source": pl.String()})})


def export_dataset(output_dir: Path | str, target: Path | str, *, run_id: str | None = None) -> int:
    """Write every accepted program whose file still lies in output_dir; return how many.

    target: `.parquet` or `.jsonl`; written atomically. A program that a user deleted stays out, and one
    that several runs know counts once. Columns: `uuid`, `entry_point`, `module_name`, `python_code`,
    `synthetic`, `licenses`, `repo_name`, `repo_link` as in KernelBook (its Triton columns come with the
    pairs), then where the program came from. Raises `UsageError` for another ending or an empty folder.
    """
    target = Path(target)
    if target.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"cannot export to {target}; name a .parquet or a .jsonl file")
    rows = _dataset(Path(output_dir), run_id)
    count = int(rows.select(pl.len()).collect().item())
    if not count:
        raise UsageError(f"{output_dir} holds no accepted program to export")
    _write(rows, target)
    return count


def _dataset(output_dir: Path, run_id: str | None) -> pl.LazyFrame:
    present = pl.LazyFrame(
        {"program_name": [path.stem for path in output_dir.glob("*.py")]},
        schema={"program_name": pl.String()},
    )
    accepted = scan_ledger(output_dir, run_id).filter("accepted")
    kept = accepted.join(present, on="program_name", how="semi")
    kept = kept.unique("program_name", keep="first", maintain_order=True)
    name = pl.col("program_name")
    source = pl.col("record").str.json_decode(_PROGRAM).struct.field("program").struct.field("source")
    return kept.select(
        pl.col("program_digest").map_elements(_identifier, return_dtype=pl.String()).alias("uuid"),
        name.alias("entry_point"),
        name.alias("module_name"),
        source.alias("python_code"),
        pl.lit(True).alias("synthetic"),
        pl.lit(["mit"]).alias("licenses"),
        pl.lit("synth-programs").alias("repo_name"),
        pl.lit("").alias("repo_link"),
        pl.col("realised").alias("operators"),
        pl.coalesce("serving_model", "requested_model").alias("model"),
        *("provider", "strategy", "seed", "program_digest", "tier", "torch", "run_id", "candidate_id"),
    )


def _identifier(digest: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, digest))


def _write(rows: pl.LazyFrame, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-") as folder:
            temporary = Path(folder) / target.name
            if target.suffix == ".parquet":
                rows.sink_parquet(temporary, compression="zstd")
            else:
                rows.sink_ndjson(temporary)
            os.replace(temporary, target)
    except OSError as error:
        raise EnvironmentFault(f"cannot write {target}: {error.strerror or error}") from None
