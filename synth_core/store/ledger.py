"""The ledger of a run: every candidate, accepted or dropped, with the reason. One Parquet file per batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from synth_core.errors import UsageError
from synth_core.records import Candidate
from synth_core.store.columns import SCHEMA, frame
from synth_core.store.runs import Run, hidden_folder, run_folder, run_ids
from synth_core.store.shards import write_table

_RUN_COLUMNS: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "flow_run_id": pl.String(),
    "round": pl.Int32(),
    "batch": pl.Int32(),
    "synth_version": pl.String(),
    "python_version": pl.String(),
}
LEDGER_SCHEMA: dict[str, pl.DataType] = {**_RUN_COLUMNS, **SCHEMA}
# The `r` matters: a killed writer may have left a temporary file with the same ending.
_FILES = "ledger/r*.parquet"


def append_ledger(
    run: Run,
    candidates: Sequence[Candidate],
    *,
    round: int,  # noqa: A002  the word that Manifest and DESIGN use
    batch: int,
) -> Path:
    """Write the final state of one batch to the run's ledger. A second write of a batch replaces the first.

    Raises `EnvironmentFault` if the file cannot be written.
    """
    path = run.folder / "ledger" / f"r{round:03d}-b{batch:06d}.parquet"
    values = {
        "run_id": run.run_id,
        "flow_run_id": run.flow_run_id,
        "round": round,
        "batch": batch,
        "synth_version": run.versions.get("synth", ""),
        "python_version": run.versions.get("python", ""),
    }
    columns = [pl.lit(values[name], dtype).alias(name) for name, dtype in _RUN_COLUMNS.items()]
    write_table(path, frame(candidates).select(*columns, *SCHEMA))
    return path


def scan_ledger(output_dir: Path | str, run_id: str | None = None) -> pl.LazyFrame:
    """The ledger of one run, or of all runs of a folder, oldest first. Empty if nothing is written yet.

    Columns: `LEDGER_SCHEMA`. Columns that a ledger of an older version lacks are null.
    """
    folders = [run_folder(output_dir, run_id)] if run_id else sorted(hidden_folder(output_dir).glob("runs/*"))
    files = [file for folder in folders for file in sorted(folder.glob(_FILES))]
    if not files:
        return pl.LazyFrame(schema=LEDGER_SCHEMA)
    return _scan(files)


def read_ledger(folder: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """All candidates of all runs of a folder, kept and dropped, oldest run first; one row each.

    Args:
        folder: The `output_dir` of `synth generate`.
        columns: The columns to read; None: all. `record` holds a whole candidate as JSON, its text
            included: leave it out where a run is large.

    Returns:
        A frame. Among its columns are `run_id`, `candidate_id`, `requested` and `realised` (operators),
        `accepted`, and `stage`, `category` and `detail` of the failure; `program_name` with `.py` is the
        file of an accepted program. `seconds` are wall seconds by stage, `cost_usd` US dollars. A run that
        an older version made may lack columns: they read as null.

    Raises:
        UsageError: The folder holds no run, or there is no such column.

    Example:
        >>> import synth_core
        >>> ledger = synth_core.read_ledger("synth-output")
        >>> ledger.filter("accepted").height <= ledger.height
        True
        >>> synth_core.read_ledger("none")
        Traceback (most recent call last):
        synth_core.errors.UsageError: none holds no run; `synth generate --output-dir none` makes one
    """
    if not run_ids(folder):
        raise UsageError(f"{folder} holds no run; `synth generate --output-dir {folder}` makes one")
    if unknown := [name for name in columns or () if name not in LEDGER_SCHEMA]:
        raise UsageError(f"the ledger has no column {unknown[0]!r}; it has {', '.join(LEDGER_SCHEMA)}")
    ledger = scan_ledger(Path(folder))
    return (ledger if columns is None else ledger.select(columns)).collect()


def accepted_programs(output_dir: Path | str) -> Iterator[tuple[str, Candidate]]:
    """Yield (run id, candidate) for every accepted candidate in the ledgers of a folder, oldest run first."""
    rows = scan_ledger(output_dir).filter("accepted").select("run_id", "record").collect()
    for run_id, record in rows.iter_rows():
        yield run_id, Candidate.model_validate_json(record)


class Attempts:
    """The attempts in the ledgers of a folder. Each file is read once, even over many calls of `fresh`."""

    def __init__(self, output_dir: Path | str) -> None:
        self._folder = hidden_folder(output_dir)
        self._read: set[Path] = set()

    def fresh(self) -> list[tuple[list[str], bool]]:
        """(operators, accepted) for each attempt that no earlier call returned.

        Operators are the realised ones if the attempt was accepted, else the requested ones.
        """
        files = sorted(set(self._folder.glob(f"runs/*/{_FILES}")) - self._read)
        if not files:
            return []
        operators = pl.when("accepted").then("realised").otherwise("requested").alias("operators")
        rows = list(_scan(files).select(operators, "accepted").collect().iter_rows())
        self._read.update(files)
        return rows


def _scan(files: list[Path]) -> pl.LazyFrame:
    return pl.scan_parquet(files, schema=LEDGER_SCHEMA, missing_columns="insert", extra_columns="ignore")
