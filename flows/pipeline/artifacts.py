"""What the Prefect UI shows of a run besides its task runs: progress, tables, the report, and events."""

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
    """The progress bar of one run. It is called often and updates the server seldom."""

    def __init__(self, run: Run) -> None:
        made = create_progress_artifact(0.0, key="progress", description=f"run {run.run_id}")
        self._id = cast(UUID, made)
        self._updated = time.monotonic()

    def show(self, tracker: ProgressTracker, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._updated < _SECONDS_BETWEEN_UPDATES:
            return
        self._updated = now
        share = 100 * tracker.attempted / tracker.planned if tracker.planned else 0.0
        text = f"{tracker.accepted} accepted of {tracker.attempted} attempts, {tracker.planned} planned"
        update_progress_artifact(self._id, share, description=text)


def show_tables(tracker: ProgressTracker) -> None:
    """Show how many attempts each stage let through, and why each stage dropped the others."""
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
    """Show the path of the report as text: browsers do not follow links from a web page to a file."""
    text = f"On `{socket.gethostname()}`:\n\n```\n{report}\n```\n"
    create_markdown_artifact(text, key="report", description="The run's report, an HTML page")


class YieldAlarm:
    """Emits an event once per run, after the first round that leaves the yield below `yield_floor`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._emitted = False

    def judge(self, tracker: ProgressTracker) -> None:
        if not self._emitted and tracker.accepted < self._run.settings.yield_floor * tracker.attempted:
            self._emitted = True
            alarm("yield-under-floor", self._run, tracker)


def alarm(name: str, run: Run, tracker: ProgressTracker, **more: str) -> None:
    """Emit an event that an automation of the user's can act on (docs/deploying.md)."""
    resource = {"prefect.resource.id": f"synth.run.{run.run_id}", "prefect.resource.name": run.run_id}
    payload = {
        "accepted": tracker.accepted,
        "attempted": tracker.attempted,
        "rejected": tracker.rejected,
        **more,
    }
    emit_event(f"synth.run.{name}", resource=resource, payload=payload)
