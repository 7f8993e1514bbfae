"""The plan of a run. Everything that a run depends on is decided here, once.

A plan is made before anything starts. The checks before a run, `run_synth` and the flow all get the same
plan, so none of them resolves settings, reads a strategy file or fetches a key again.

This module imports no Prefect, because the command line makes a plan before it starts Prefect.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from flows.prefect_server.locks import lock_run
from flows.prefect_server.secret_block import fetch_key
from synth_core.errors import UsageError
from synth_core.settings import BudgetSettings, Settings
from synth_core.store import Run, RunState, latest_run, load_run, plan_run, refuse_pruned, run_folder, run_ids
from synth_core.store.runs import check_writable
from synth_core.strategies import Strategy

FetchKey = Callable[[Settings], SecretStr | None]

# In a provider's batch mode each batch is one job. A job takes up to a day, so all jobs of a run must be
# under way at once; Gemini allows at most a hundred.
JOBS_AT_ONCE = 80
# A batch in flight occupies one thread for each of its task runs. A pool gets many candidates at once, so
# small batches would mean thousands of threads.
_SMALLEST, _SMALLEST_FOR_A_POOL, _LARGEST = 16, 64, 256


@dataclass(frozen=True)
class Plan:
    """What one run will do.

    Attributes:
        run: The run's record. Its settings are resolved. The record of a new run is not on disk yet.
        strategies: Each strategy with the text that identifies its batches.
        key: The provider's key from a Secret block; None if the settings name no block. It lives here and
            nowhere else: the record, the flow's parameter and the caches never hold it.
        resumed: Whether the run existed before. The plan's maker then holds the run's lock.
    """

    run: Run
    strategies: tuple[tuple[Strategy, str], ...]
    key: SecretStr | None = field(default=None, repr=False)
    resumed: bool = False

    @property
    def settings(self) -> Settings:
        return self.run.settings


def plan_new(settings: Settings, fetch: FetchKey = fetch_key) -> Plan:
    """Plan a new run and write nothing.

    Raises `UsageError` for a strategy, a prompt file or a Secret block that cannot be read.
    """
    run = plan_run(settings)
    return plan_of(run.model_copy(update={"settings": with_batch_size(run.settings)}), fetch)


@contextlib.contextmanager
def plan_resume(
    output_dir: Path | str,
    run_id: str = "",
    budget: BudgetSettings | None = None,
    fetch: FetchKey = fetch_key,
) -> Iterator[Plan]:
    """Plan the rest of a run, and hold the run's lock while the block runs.

    The run's record is read under the lock, so no other process can change it between plan and work.

    Args:
        output_dir: Folder of the accepted programs.
        run_id: The run; empty: the newest incomplete run, or the newest run if all are complete. To resume
            a complete run only writes its report again, which a kill may have prevented.
        budget: New limits. A limit of 0 keeps the run's own.
        fetch: How to get the key from a Secret block.

    Raises `UsageError` if there is no such run, if another process works on it, or if its shards were
    removed.
    """
    with _held(output_dir, run_id) as run:
        refuse_pruned(run)
        yield plan_of(_with_budget(run, budget or BudgetSettings()), fetch, resumed=True)


def plan_of(run: Run, fetch: FetchKey, *, resumed: bool = False) -> Plan:
    """The plan of a run whose record says all but the key."""
    return Plan(run, tuple(run.planned()), fetch(run.settings), resumed)


def batch_size(settings: Settings) -> int:
    """How many candidates one task run handles.

    Large batches keep orchestration cheap; small batches let stages overlap.
    """
    batches = JOBS_AT_ONCE if settings.provider.batch else 200
    return settings.batch_size or min(
        max(math.ceil(settings.num_total_samples / batches), _SMALLEST), _LARGEST
    )


def with_batch_size(settings: Settings) -> Settings:
    """The same resolved settings with the batch size decided, for the run's record.

    Older records leave it open. Such a run goes on with what `batch_size` gives.
    """
    size = settings.batch_size
    if not size:
        smallest = _SMALLEST if settings.validation.pool == "local" else _SMALLEST_FOR_A_POOL
        size = max(batch_size(settings), smallest)
    return settings.model_copy(update={"batch_size": size})


@contextlib.contextmanager
def _held(output_dir: Path | str, run_id: str) -> Iterator[Run]:
    """The run to resume, read under its lock."""
    ids = run_ids(output_dir)
    if run_id and run_id not in ids:
        load_run(output_dir, run_id)  # raises, and names the runs that are there
    if not ids:
        latest_run(output_dir)  # raises
    check_writable(Path(output_dir))
    for each in [] if run_id else reversed(ids):
        with lock_run(run_folder(output_dir, each)) as free:
            run = _incomplete(output_dir, each)
            if run:
                yield _unless_at_work(run, free)
                return
    with lock_run(run_folder(output_dir, run_id or ids[-1])) as free:
        yield _unless_at_work(load_run(output_dir, run_id or ids[-1]), free)


def _incomplete(output_dir: Path | str, run_id: str) -> Run | None:
    """The run, unless it is complete or another version of Synth wrote a record that this one cannot read."""
    with contextlib.suppress(UsageError):
        run = load_run(output_dir, run_id)
        return run if run.state is not RunState.COMPLETED else None
    return None


def _unless_at_work(run: Run, free: bool) -> Run:
    if not free:
        raise UsageError(f"another process works on run {run.run_id}; wait until it ends, or stop it")
    return run


def _with_budget(run: Run, given: BudgetSettings) -> Run:
    limits = {name: limit for name, limit in given if limit}
    budget = run.settings.budget.model_copy(update=limits)
    return run.model_copy(update={"settings": run.settings.model_copy(update={"budget": budget})})
