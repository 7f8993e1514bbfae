"""Exports the accepted programs of a folder as one dataset file, with KernelBook's column names."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from pathlib import Path

import polars as pl

from synth_core.errors import EnvironmentFault, UsageError
from synth_core.program.constants import with_constants
from synth_core.store.ledger import scan_ledger
from synth_core.store.runs import load_run

# A fixed namespace, so that a program has the same identifier in every export.
_NAMESPACE = uuid.UUID("6f0b4d8e-55a6-4d0e-9b0a-6a3c1d2f7e10")
_PART = 5_000  # programs; about 10 MB of text


def export_dataset(output_dir: Path | str, target: Path | str, *, run_id: str | None = None) -> int:
    """Write every accepted program whose file is still in `output_dir` to `target`. Returns how many.

    A program whose file the user deleted is left out. A program of several runs is written once.

    target: a `.parquet` or `.jsonl` file; written atomically.
    run_id: export this run only. None: all runs of the folder.

    Columns: `uuid`, `entry_point`, `module_name`, `python_code`, `synthetic`, `licenses`, `repo_name` and
    `repo_link` as in KernelBook (its Triton columns come with the pairs), then the origin of the program.
    `bench_code` is the same program at GPU sizes, with its cost in the columns after it. It is null in runs
    without `--sizes both`.

    Raises `UsageError` for another file ending, a folder without accepted programs or an unknown run, and
    `EnvironmentFault` if `target` cannot be written.
    """
    target, output_dir = Path(target), Path(output_dir)
    if target.suffix not in (".parquet", ".jsonl"):
        raise UsageError(f"cannot export to {target}; name a .parquet or a .jsonl file")
    if target.is_dir():
        raise UsageError(f"cannot export to {target}, which is a folder")
    rows = _present(output_dir, run_id)
    if rows.is_empty():
        if run_id:
            load_run(output_dir, run_id)  # raises for an unknown run
        raise UsageError(f"{output_dir} contains no accepted program to export")
    try:
        _write(rows, output_dir, target)
    except OSError as error:
        raise EnvironmentFault(f"cannot write {target}: {error.strerror or error}") from None
    return rows.height


def _present(output_dir: Path, run_id: str | None) -> pl.DataFrame:
    """The ledger rows of accepted programs whose files still exist, without the `record` column."""
    stems = [path.stem for path in output_dir.glob("*.py")]
    files = pl.LazyFrame({"program_name": stems}, schema={"program_name": pl.String()})
    accepted = scan_ledger(output_dir, run_id).filter("accepted")
    kept = accepted.drop("record").join(files, on="program_name", how="semi", maintain_order="left")
    return kept.unique("program_name", keep="first", maintain_order=True).collect()


def _write(rows: pl.DataFrame, output_dir: Path, target: Path) -> None:
    """Write parts, then join them as a stream, so that memory holds one part at a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-") as folder:
        for number, part in enumerate(rows.iter_slices(_PART)):
            _dataset(part, output_dir).write_parquet(Path(folder) / f"{number:06d}.part")
        whole = pl.scan_parquet(Path(folder) / "*.part")
        temporary = Path(folder) / target.name
        if target.suffix == ".parquet":
            whole.sink_parquet(temporary, compression="zstd")
        else:
            whole.sink_ndjson(temporary)
        os.replace(temporary, target)


def _dataset(rows: pl.DataFrame, output_dir: Path) -> pl.DataFrame:
    names = rows["program_name"]
    texts = [(output_dir / f"{name}.py").read_text(encoding="utf-8") for name in names]
    return rows.select(
        pl.Series("uuid", [str(uuid.uuid5(_NAMESPACE, digest)) for digest in rows["program_digest"]]),
        names.alias("entry_point"),
        names.alias("module_name"),
        pl.Series("python_code", texts),
        pl.lit(True).alias("synthetic"),
        pl.lit([], pl.List(pl.String())).alias("licenses"),
        pl.lit("synth-programs").alias("repo_name"),
        pl.lit("").alias("repo_link"),
        pl.col("realised").alias("operators"),
        pl.coalesce("serving_model", "requested_model").alias("model"),
        pl.Series("bench_code", map(_at, texts, rows["bench_constants"]), pl.String()),
        *("bench_flops", "bench_bytes", "bench_intensity", "shape_sets"),
        *("provider", "strategy", "seed", "program_digest", "tier", "torch", "run_id", "candidate_id"),
    )


def _at(text: str, constants: str | None) -> str | None:
    return None if constants is None else with_constants(text, json.loads(constants))
