"""What the Prefect UI shows of a run beside its task runs: live progress, tables, the report, alarms."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.events import emit_event

from flows.pipeline.progress import ProgressTracker
from synth_core.records import Stage
from synth_core.store import Run

_SECONDS_BETWEEN_UPDATES = 5.0


class ProgressBar:
    """The progress bar of one run; told often, it speaks seldom."""

    def __init__(self, run: Run) -> None:
        made = create_progress_artifact(0.0, key="progress", description=f"run {run.run_id}")
        self._id = cast(UUID, made)
        self._told = time.monotonic()

    def show(self, tracker: ProgressTracker, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._told < _SECONDS_BETWEEN_UPDATES:
            return
        self._told = now
        share = 100 * tracker.attempted / tracker.planned if tracker.planned else 0.0
        text = f"{tracker.accepted} accepted of {tracker.attempted} attempts, {tracker.planned} planned"
        update_progress_artifact(self._id, share, description=text)


def show_tables(tracker: ProgressTracker) -> None:
    """Yield per stage, and how often each stage dropped for which reason."""
    yields = []
    before = tracker.attempted
    for stage in Stage:
        alive = tracker.alive[stage]
        share = f"{alive / before:.1%}" if before else "-"
        yields.append({"stage": stage.value, "in": before, "alive": alive, "passed": share})
        before = alive
    create_table_artifact(yields, key="yield-per-stage", description="Attempts that each stage let through")
    failures = [
        {"stage": stage.value, "category": category, "attempts": count}
        for stage in Stage
        for category, count in tracker.failed[stage].most_common()
    ]
    create_table_artifact(failures, key="failures", description="Why attempts were dropped, by stage")


def show_report(report: Path) -> None:
    """Where the page lies: as text, since a browser follows no link from Prefect's page to a file."""
    text = f"On `{socket.gethostname()}`:\n\n```\n{report}\n```\n"
    create_markdown_artifact(text, key="report", description="The run's report, an HTML page")


class YieldAlarm:
    """Speaks once a run: after the first round that leaves its yield under the floor."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._given = False

    def judge(self, tracker: ProgressTracker) -> None:
        if not self._given and tracker.accepted < self._run.settings.yield_floor * tracker.attempted:
            self._given = True
            alarm("yield-under-floor", self._run, tracker)


def alarm(name: str, run: Run, tracker: ProgressTracker, **more: str) -> None:
    """An event that an automation can act on (docs/deploying.md)."""
    resource = {"prefect.resource.id": f"synth.run.{run.run_id}", "prefect.resource.name": run.run_id}
    payload = {
        "accepted": tracker.accepted,
        "attempted": tracker.attempted,
        "rejected": tracker.rejected,
        **more,
    }
    emit_event(f"synth.run.{name}", resource=resource, payload=payload)
