"""Makes a `Report` from the ledger: Polars queries over its typed columns."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from synth_core.errors import UsageError
from synth_core.operators.catalog import CATALOG
from synth_core.operators.operator import Group
from synth_core.providers.cost_ledger import read_costs, read_totals
from synth_core.records import Candidate, Stage
from synth_core.reporting.proportion import wilson
from synth_core.reporting.report import (
    Example,
    FailureRow,
    OperatorRow,
    Report,
    Spend,
    StageRow,
    Yield,
)
from synth_core.store import Run, latest_run, load_run, run_folder, run_ids, scan_ledger

ALL_RUNS = "all"
_ORDER = {stage.value: position for position, stage in enumerate(Stage)}
_FAILURE_EXAMPLES = 12
# The columns that the report needs. All columns of a large run would take hundreds of MB.
_COLUMNS = (
    *("run_id", "index", "attempt", "candidate_id", "strategy", "requested", "realised", "accepted"),
    *("stage", "category", "check", "detail", "warnings", "tier", "seconds", "from_cache"),
    *("requested_model", "serving_model"),
)
_ANSWERED = pl.col("position") >= _ORDER[Stage.EXTRACT]
_SOUND = pl.col("position") >= _ORDER[Stage.FILTER]


def summarise(output_dir: Path | str, run_id: str | None = None) -> Report:
    """Make the report of one run, or of all runs of a folder.

    run_id: None: the newest run; "all": all runs. A run in progress is reported up to its last batch.
    Raises `UsageError` if there is no such run.
    """
    whole = run_id == ALL_RUNS
    run = latest_run(output_dir) if whole or run_id is None else load_run(output_dir, run_id)
    ledger = scan_ledger(output_dir, None if whole else run.run_id)
    names = pl.col("requested", "realised").cast(pl.List(pl.Categorical))
    rows = ledger.select(_COLUMNS).with_columns(names, _position().alias("position")).collect()
    runs = run_ids(output_dir) if whole else [run.run_id]
    folders = {name: run_folder(output_dir, name) for name in runs}
    rows = _with_costs(rows, folders)
    accepted = rows.filter("accepted").select("run_id", "candidate_id", "attempt", "realised", "warnings")
    return Report(
        **_header(run, whole),
        runs=len(folders),
        attempted=rows.height,
        candidates=rows.select("run_id", "index").n_unique(),
        accepted=accepted.height,
        first_try=accepted.filter(pl.col("attempt") == 0).height,
        rejected=_counts(rows["category"]),
        strategies=_yields(rows, "strategy"),
        attempts=_yields(rows, "attempt"),
        stages=tuple(_stage_row(rows, stage) for stage in Stage),
        failures=_failures(rows),
        filtered=_counts(rows.filter(pl.col("stage") == Stage.FILTER)["check"]),
        warnings=_counts(accepted["warnings"].explode()),
        tiers=_counts(rows["tier"]),
        operators=_operators(rows),
        never_realised=_never_realised(accepted),
        lengths=dict(accepted.group_by(pl.col("realised").list.len()).len().sort("realised").iter_rows()),
        spend=_spend(rows, folders),
        models=_counts(rows.select(pl.coalesce("serving_model", "requested_model")).to_series()),
        accepted_examples=_examples(ledger, _short_medium_long(accepted)),
        failed_examples=_examples(ledger, _first_of_each_failure(rows)),
    )


def _header(run: Run, whole: bool) -> dict[str, Any]:
    return {
        "output_dir": str(run.output_dir),
        "run_id": "" if whole else run.run_id,
        "state": run.state,
        "started": _first_start(run.output_dir) if whole else run.started,
        "ended": run.ended,
        "settings": run.settings.model_dump(mode="json"),
        "versions": run.versions,
    }


def _first_start(output_dir: Path) -> datetime:
    """The earliest start of the runs that this version can read. There must be at least one."""
    runs = []
    for name in run_ids(output_dir):
        with contextlib.suppress(UsageError):
            runs.append(load_run(output_dir, name).started)
    return min(runs)


def _position() -> pl.Expr:
    """How far a candidate got: the position of its last stage."""
    return pl.col("stage").replace_strict(_ORDER, default=0, return_dtype=pl.Int32)


def _counts(values: pl.Series) -> dict[str, int]:
    """Value -> count, most frequent first. Nulls are left out."""
    counted = values.alias("value").drop_nulls().value_counts()
    return dict(counted.sort("count", "value", descending=[True, False]).iter_rows())


def _yields(rows: pl.DataFrame, column: str) -> tuple[Yield, ...]:
    grouped = rows.group_by(pl.col(column).cast(pl.String).alias("name")).agg(
        attempted=pl.len(), accepted=pl.col("accepted").sum(), cost_usd=pl.col("cost_usd").sum()
    )
    return tuple(Yield(**row) for row in grouped.sort("name").iter_rows(named=True))


def _stage_row(rows: pl.DataFrame, stage: Stage) -> StageRow:
    seconds = pl.col("seconds").struct.field(stage.replace("-", "_"))
    times = rows.select(total_s=seconds.sum(), median_s=seconds.median(), p95_s=seconds.quantile(0.95))
    return StageRow(
        stage=stage,
        entered=rows.filter(pl.col("position") >= _ORDER[stage]).height,
        dropped=_counts(rows.filter(pl.col("stage") == stage)["category"]),
        **times.to_dicts()[0],
        cached=rows.filter(pl.col("from_cache").list.contains(stage.value)).height,
    )


def _failed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("category").is_not_null()).with_columns(pl.col("check", "detail").fill_null(""))


def _failures(rows: pl.DataFrame) -> tuple[FailureRow, ...]:
    grouped = _failed(rows).group_by("stage", "category", "check").agg(
        count=pl.len(),
        share=pl.len() / max(rows.height, 1),
        detail=pl.col("detail").mode().sort().first(),
        details=pl.col("detail").n_unique(),
        candidates=pl.col("candidate_id").sort().head(3),
    )  # fmt: skip
    ordered = grouped.sort("count", "stage", "category", "check", descending=[True, False, False, False])
    return tuple(FailureRow(**row) for row in ordered.iter_rows(named=True))


def _operators(rows: pl.DataFrame) -> tuple[OperatorRow, ...]:
    """The requested operators, least successful first."""
    judged = (
        rows.filter(_ANSWERED)
        .select(pl.col("requested").list.unique().alias("name"), _SOUND.alias("sound"))
        .explode("name")
        .group_by("name")
        .agg(judged=pl.len(), sound=pl.col("sound").sum())
    )
    realised = _realised(rows.filter("accepted"))
    groups = {operator.name: operator.group.value for operator in CATALOG}
    result = []
    for name, tried, sound in judged.drop_nulls().iter_rows():
        low, high = wilson(sound, tried)
        result.append(
            OperatorRow(
                name=name,
                group=groups.get(name, ""),
                judged=tried,
                sound=sound,
                rate=sound / tried,
                low=low,
                high=high,
                realised=realised.get(name, 0),
            )
        )
    return tuple(sorted(result, key=lambda row: (row.rate, -row.judged, row.name)))


def _realised(accepted: pl.DataFrame) -> dict[str, int]:
    return _counts(accepted.select(pl.col("realised").list.unique()).to_series().explode())


def _never_realised(accepted: pl.DataFrame) -> tuple[str, ...]:
    seen = _realised(accepted)
    return tuple(op.name for op in CATALOG if op.group is not Group.MOTIF and op.name not in seen)


def _with_costs(rows: pl.DataFrame, folders: Mapping[str, Path]) -> pl.DataFrame:
    """Add the column `cost_usd`: the cost of each candidate's calls.

    It comes from the cost ledger. The rows' own costs are not enough: if a resumed run repeats a batch, its
    answers come from the cache and cost nothing.
    """
    costs = [(run, candidate, usd) for run in folders for candidate, usd in read_costs(folders[run]).items()]
    schema = {"run_id": rows.schema["run_id"], "candidate_id": rows.schema["candidate_id"]}
    frame = pl.DataFrame(costs, {**schema, "cost_usd": pl.Float64}, orient="row")
    return rows.join(frame, on=["run_id", "candidate_id"], how="left", maintain_order="left")


def _spend(rows: pl.DataFrame, folders: Mapping[str, Path]) -> Spend:
    totals = [read_totals(folder) for folder in folders.values()]
    return Spend(
        calls=sum(each.calls for each in totals),
        failed=sum(each.failed for each in totals),
        lost=sum(each.lost for each in totals),
        from_cache=rows.select(pl.col("from_cache").list.contains(Stage.LLM.value).sum()).item(),
        input_tokens=sum(each.input_tokens for each in totals),
        output_tokens=sum(each.output_tokens for each in totals),
        thinking_tokens=sum(each.thinking_tokens for each in totals),
        cached_tokens=sum(each.cached_tokens for each in totals),
        cost_usd=sum(each.cost_usd for each in totals),
        failed_cost_usd=sum(each.failed_cost_usd for each in totals),
        unsaid_usd=sum(each.worst_unsaid.usd for each in totals),
        unpriced=sum(each.unpriced for each in totals),
        active_s=sum(each.active_s for each in totals),
    )


def _short_medium_long(accepted: pl.DataFrame) -> pl.DataFrame:
    """Three accepted programs: those with the fewest, the median number of, and the most operators."""
    keys = accepted.select("run_id", "candidate_id", length=pl.col("realised").list.len())
    ordered = keys.sort("length", "run_id", "candidate_id")
    places = sorted({0, ordered.height // 2, ordered.height - 1}) if ordered.height else []
    return ordered[places]


def _first_of_each_failure(rows: pl.DataFrame) -> pl.DataFrame:
    """One candidate for each of the most frequent kinds of failure."""
    kind = ["stage", "category", "check"]
    failed = _failed(rows).select("run_id", "candidate_id", *kind).sort("run_id", "candidate_id")
    failed = failed.with_columns(pl.len().over(kind).alias("frequency"))
    first = failed.unique(kind, keep="first", maintain_order=True)
    return first.sort("frequency", "candidate_id", descending=[True, False]).head(_FAILURE_EXAMPLES)


def _examples(ledger: pl.LazyFrame, chosen: pl.DataFrame) -> tuple[Example, ...]:
    """The chosen rows with their texts, in the given order. Only these records are parsed."""
    if chosen.is_empty():
        return ()
    wanted = pl.col("candidate_id").is_in(chosen["candidate_id"].implode())
    records = ledger.filter(wanted).select("run_id", "candidate_id", "record").collect()
    found = {(run, candidate): record for run, candidate, record in records.iter_rows()}
    return tuple(
        _example(Candidate.model_validate_json(found[key]))
        for key in chosen.select("run_id", "candidate_id").iter_rows()
    )


def _example(candidate: Candidate) -> Example:
    failure, program = candidate.failure, candidate.program
    text = program.source if program else candidate.completion.text if candidate.completion else ""
    return Example(
        candidate_id=candidate.id,
        name=program.name if program else "",
        source=text,
        stage=failure.stage if failure else "",
        category=failure.category or "" if failure else "",
        detail=failure.detail if failure else "",
        requested=candidate.specification.operators,
        realised=candidate.graph.operators if candidate.graph else (),
    )
