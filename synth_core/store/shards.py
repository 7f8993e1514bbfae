"""Shards: Parquet files that pass candidates from one task run to the next."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from synth_core.atomic import write_atomic
from synth_core.errors import EnvironmentFault
from synth_core.records import Candidate, Manifest, Stage, operator_signature, sha256
from synth_core.store.columns import candidates_of, frame


def write_shard(
    path: Path | str,
    candidates: Sequence[Candidate],
    *,
    stage: Stage,
    strategy: str = "",
    round: int = 0,  # noqa: A002  the word that Manifest and DESIGN use
    batch: int = 0,
) -> Manifest:
    """Write the candidates to one Parquet file, atomically. Returns its manifest.

    Raises `EnvironmentFault` if the file cannot be written.
    """
    write_table(Path(path), frame(candidates))
    return describe_shard(path, candidates, stage=stage, strategy=strategy, round=round, batch=batch)


def describe_shard(
    path: Path | str,
    candidates: Sequence[Candidate],
    *,
    stage: Stage,
    strategy: str = "",
    round: int = 0,  # noqa: A002  the word that Manifest and DESIGN use
    batch: int = 0,
) -> Manifest:
    """The manifest of an existing shard.

    Its digest ignores telemetry. So if the same work is done twice, later stages find their cached results.
    """
    dropped = [c.failure.category for c in candidates if c.failure and c.failure.stage is stage]
    return Manifest(
        path=str(path),
        digest=sha256("\n".join(candidate.content_digest() for candidate in candidates)),
        signature=operator_signature(operator_signature(c.specification.operators) for c in candidates),
        stage=stage,
        strategy=strategy,
        round=round,
        batch=batch,
        total=len(candidates),
        alive=sum(candidate.alive for candidate in candidates),
        failed=dict(sorted(Counter(str(category) for category in dropped).items())),
    )


def read_shard(path: Path | str) -> list[Candidate]:
    """The candidates of a shard, in their written order. Raises `EnvironmentFault` if it cannot be read."""
    try:
        return candidates_of(pl.read_parquet(Path(path), columns=["record"]))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise EnvironmentFault(f"cannot read the shard {path}: {error}") from None


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a table atomically.

    The bytes are built in memory first (a batch has a few MB). Then a full disk fails in our own write, which
    has a clear error. Raises `EnvironmentFault`.
    """
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())
