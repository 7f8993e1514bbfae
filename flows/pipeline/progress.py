"""Count how far a run is, from the manifests of finished task runs, cached ones included."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from synth_core.records import Manifest, Record, Stage


@dataclass(frozen=True)
class Progress:
    """A snapshot of a run.

    planned: attempts that are planned or done; it grows when failures are tried again.
    done: stage -> attempts that have passed through it. alive: stage -> those that it let through.
    rejected: category -> attempts. seconds: time at work, earlier sessions included. spend: the dispatcher's
    snapshot (calls, tokens, cost); None before there is one.
    """

    planned: int
    done: dict[Stage, int]
    alive: dict[Stage, int]
    accepted: int
    rejected: dict[str, int]
    round: int
    seconds: float
    spend: Any = None


class RunSummary(Record):
    """The result of a run, its earlier sessions included.

    attempted: all attempts, retries included; it is the sum of accepted and rejected. wall_s: seconds at
    work, without the pauses between sessions.
    """

    run_id: str
    output_dir: str
    attempted: int
    accepted: int
    rejected: dict[str, int]
    cost_usd: float | None
    calls: int
    wall_s: float
    report: str
    short: bool = False  # fewer programs were accepted than asked for
    budget_spent: str = ""  # the budget that ended the run early; empty if none did


@dataclass
class ProgressTracker:
    """Adds up manifests from many threads and calls the observer.

    earlier_s: seconds that earlier sessions of the run were at work.
    """

    observer: Callable[[Progress], None] | None = None
    spend: Callable[[], Any] = lambda: None
    earlier_s: float = 0.0
    planned: int = 0
    round: int = 0
    began: float = field(default_factory=time.monotonic)
    done: Counter[Stage] = field(default_factory=Counter)
    alive: Counter[Stage] = field(default_factory=Counter)
    failed: dict[Stage, Counter[str]] = field(default_factory=lambda: {stage: Counter() for stage in Stage})
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def plan(self, attempts: int, *, round: int) -> None:  # noqa: A002  named as in Manifest
        with self._lock:
            self.planned += attempts
            self.round = round
            self._notify()

    def add(self, manifest: Manifest) -> None:
        with self._lock:
            self.done[manifest.stage] += manifest.total
            self.alive[manifest.stage] += manifest.alive
            self.failed[manifest.stage].update(manifest.failed)
            self._notify()

    @property
    def seconds(self) -> float:
        return self.earlier_s + time.monotonic() - self.began

    @property
    def attempted(self) -> int:
        return self.done[Stage.PERSIST]

    @property
    def accepted(self) -> int:
        return self.alive[Stage.PERSIST]

    @property
    def rejected(self) -> dict[str, int]:
        return dict(sum(self.failed.values(), Counter()).most_common())

    def snapshot(self) -> Progress:
        with self._lock:
            return Progress(
                planned=self.planned,
                done=dict(self.done),
                alive=dict(self.alive),
                accepted=self.accepted,
                rejected=self.rejected,
                round=self.round,
                seconds=self.seconds,
                spend=self.spend(),
            )

    def _notify(self) -> None:
        if self.observer:
            self.observer(self.snapshot())
