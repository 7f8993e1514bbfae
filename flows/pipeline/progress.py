"""How far a run is: counted from the manifests as task runs end, cached ones too."""

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
    """A snapshot.

    planned: attempts that are known to come or done; grows when failures are tried again.
    done: stage -> attempts that left it. alive: stage -> those of them still alive.
    rejected: category -> attempts. seconds: at work, in earlier sessions too. spend: the dispatcher's
    snapshot (calls, tokens, cost), None before it.
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
    """What a run came to.

    All of it counts for the whole run, its earlier sessions included. attempted counts every attempt, first
    ones and further ones: accepted and rejected add up to it. wall_s: seconds at work, without the pauses
    between sessions.
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
    short: bool = False  # ended before what was asked for was reached
    budget_spent: str = ""  # which budget ended it early, if one did


@dataclass
class ProgressTracker:
    """Adds up manifests from many threads and tells the observer.

    earlier_s: seconds for which earlier sessions of the run were at work.
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

    def plan(self, attempts: int, *, round: int) -> None:  # noqa: A002  the word that Manifest uses
        with self._lock:
            self.planned += attempts
            self.round = round
            self._tell()

    def add(self, manifest: Manifest) -> None:
        with self._lock:
            self.done[manifest.stage] += manifest.total
            self.alive[manifest.stage] += manifest.alive
            self.failed[manifest.stage].update(manifest.failed)
            self._tell()

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

    def _tell(self) -> None:
        if self.observer:
            self.observer(self.snapshot())
