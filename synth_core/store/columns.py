"""One candidate as one row: typed columns for analysis, and the whole record as JSON for reading back.

The `record` column is the source of truth; all other columns are derived from it. Parquet stores columns
separately, so a report reads the typed columns without the cost of `record`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from synth_core.records import Candidate, Stage, Verdict, operator_signature

SECONDS = tuple(stage.value.replace("-", "_") for stage in Stage)

SCHEMA: dict[str, pl.DataType] = {
    "index": pl.Int64(),
    "attempt": pl.Int32(),
    "candidate_id": pl.String(),
    "parent_id": pl.String(),
    "strategy": pl.String(),
    "provider": pl.String(),
    "seed": pl.UInt64(),
    "requested": pl.List(pl.String()),
    "realised": pl.List(pl.String()),
    "requested_signature": pl.String(),
    "realised_signature": pl.String(),
    "accepted": pl.Boolean(),
    "stage": pl.String(),
    "category": pl.String(),
    "check": pl.String(),
    "detail": pl.String(),
    "warnings": pl.List(pl.String()),
    "program_name": pl.String(),
    "program_digest": pl.String(),
    "prompt_digest": pl.String(),
    "requested_model": pl.String(),
    "serving_model": pl.String(),
    "outcome": pl.String(),
    "input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "thinking_tokens": pl.Int64(),
    "cached_tokens": pl.Int64(),
    "cost_usd": pl.Float64(),
    "bench_constants": pl.String(),  # JSON: constant -> value; `shape_sets` is a list of these
    "bench_flops": pl.Int64(),
    "bench_bytes": pl.Int64(),
    "bench_intensity": pl.Float64(),
    "shape_sets": pl.String(),
    "calls": pl.Int32(),
    "from_cache": pl.List(pl.String()),
    "tier": pl.String(),
    "torch": pl.String(),
    "seconds": pl.Struct({name: pl.Float64() for name in SECONDS}),
    "record": pl.String(),
}


def frame(candidates: Sequence[Candidate]) -> pl.DataFrame:
    """The candidates as a table with the columns of `SCHEMA`, in the same order."""
    return pl.DataFrame([_row(candidate) for candidate in candidates], schema=SCHEMA)


def candidates_of(table: pl.DataFrame) -> list[Candidate]:
    """The candidates of a table that has a `record` column."""
    return [Candidate.model_validate_json(record) for record in table["record"]]


def _row(candidate: Candidate) -> dict[str, Any]:
    specification, program, graph = candidate.specification, candidate.program, candidate.graph
    return {
        "index": candidate.index,
        "attempt": candidate.attempt,
        "candidate_id": candidate.id,
        "parent_id": candidate.parent_id or None,
        "strategy": specification.strategy,
        "provider": specification.provider,
        "seed": specification.seed,
        "requested": specification.operators,
        "realised": graph.operators if graph else None,
        "requested_signature": operator_signature(specification.operators),
        "realised_signature": operator_signature(graph.operators) if graph else None,
        "accepted": candidate.alive and candidate.passed(Stage.PERSIST),
        "program_name": program.name if program else None,
        "program_digest": program.digest if program else None,
        "prompt_digest": candidate.prompt.digest if candidate.prompt else None,
        "record": candidate.model_dump_json(),
        **_verdict_columns(candidate),
        **_provider_columns(candidate),
        **_sizes_columns(candidate),
    }


def _sizes_columns(candidate: Candidate) -> dict[str, Any]:
    sizes = candidate.completion.sizes if candidate.completion else None
    if sizes is None:
        return {}
    return {
        "bench_constants": json.dumps(sizes.constants),
        "bench_flops": sizes.flops,
        "bench_bytes": sizes.bytes,
        "bench_intensity": sizes.intensity,
        "shape_sets": json.dumps(sizes.shape_sets),
    }


def _verdict_columns(candidate: Candidate) -> dict[str, Any]:
    """The verdict that dropped the candidate (else the last verdict), and the isolation tier of its run."""
    decisive = candidate.failure or (candidate.verdicts[-1] if candidate.verdicts else None)
    ran: Verdict | None = next((v for v in reversed(candidate.verdicts) if v.tier), None)
    seconds = candidate.telemetry.seconds
    return {
        "stage": decisive.stage if decisive else None,
        "category": decisive.category if decisive else None,
        "check": decisive.check or None if decisive else None,
        "detail": decisive.detail or None if decisive else None,
        "warnings": sorted({name for verdict in candidate.verdicts for name in verdict.warnings}),
        "tier": ran.tier if ran else None,
        "torch": ran.torch if ran else None,
        "seconds": {name: seconds.get(stage) for name, stage in zip(SECONDS, Stage, strict=True)},
    }


def _provider_columns(candidate: Candidate) -> dict[str, Any]:
    completion, telemetry = candidate.completion, candidate.telemetry
    return {
        "requested_model": completion.requested_model if completion else None,
        "serving_model": completion.serving_model or None if completion else None,
        "outcome": completion.outcome if completion else None,
        "input_tokens": telemetry.usage.input_tokens,
        "output_tokens": telemetry.usage.output_tokens,
        "thinking_tokens": telemetry.usage.thinking_tokens,
        "cached_tokens": telemetry.usage.cached_tokens,
        "cost_usd": telemetry.usage.cost_usd,
        "calls": telemetry.calls,
        "from_cache": telemetry.from_cache,
    }
