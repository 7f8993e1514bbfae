"""The progress of a run: one bar per stage at a terminal, else one line per minute.

Everything goes to stderr, so that stdout stays free for `--json`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from flows.pipeline.progress import Progress
from synth_core.records import Stage

_MINUTE = 60.0
_BEFORE = Progress(planned=0, done={}, alive={}, accepted=0, rejected={}, round=0, seconds=0.0)


@contextlib.contextmanager
def progress_view(target: int = 0) -> Iterator[Callable[[Progress], None]]:
    """Yield the observer of a run. `target` is the wanted number of accepted programs; 0: no target."""
    console = Console(stderr=True, highlight=False)
    latest = _Latest(target)
    with _bars(console, latest) if console.is_terminal else _lines(latest) as observe:
        yield observe


class _Latest:
    """The headline of the latest progress. Its clock also moves between two batches."""

    def __init__(self, target: int) -> None:
        self._target, self._told = target, (_BEFORE, time.monotonic())

    def tell(self, progress: Progress) -> None:
        self._told = progress, time.monotonic()

    def __str__(self) -> str:
        progress, since = self._told
        seconds = progress.seconds + time.monotonic() - since
        return headline(replace(progress, seconds=seconds), self._target)

    def __rich__(self) -> Text:
        return Text(str(self), style="bold")


@contextlib.contextmanager
def _bars(console: Console, latest: _Latest) -> Iterator[Callable[[Progress], None]]:
    bars = Bars(
        TextColumn("{task.description:<17}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[alive]} alive"),
        console=console,
    )
    rows: dict[Stage, TaskID] = {stage: bars.add_task(stage.value, total=None, alive=0) for stage in Stage}
    lock = threading.Lock()

    def observe(progress: Progress) -> None:
        with lock:
            for stage, row in rows.items():
                done, alive = progress.done.get(stage, 0), progress.alive.get(stage, 0)
                bars.update(row, total=progress.planned, completed=done, alive=alive)
            latest.tell(progress)

    with Live(Group(bars, latest), console=console, refresh_per_second=5, transient=True):
        yield observe


@contextlib.contextmanager
def _lines(latest: _Latest) -> Iterator[Callable[[Progress], None]]:
    """One line per minute from a thread, because a batch can take hours."""
    ended = threading.Event()

    def speak() -> None:
        while not ended.wait(_MINUTE):
            print(f"synth: {latest}", file=sys.stderr, flush=True)

    speaker = threading.Thread(target=speak, name="progress-lines", daemon=True)
    speaker.start()
    try:
        yield latest.tell
    finally:
        ended.set()
        speaker.join()


def headline(progress: Progress, target: int = 0) -> str:
    """One line: attempts, accepted programs, yield, cost, time passed and time left."""
    done = progress.done.get(Stage.PERSIST, 0)
    parts = [f"{done}/{progress.planned} attempts"]
    parts.append(f"{progress.accepted}/{target} accepted" if target else f"{progress.accepted} accepted")
    if done:
        parts.append(f"yield {progress.accepted / done:.0%}")
    if progress.round:
        parts.append(f"round {progress.round + 1}")
    parts += _spend(progress, target)
    parts.append(f"{_clock(progress.seconds)} passed")
    share = _share(progress, target)
    if 0 < share < 1:
        parts.append(f"about {_clock(progress.seconds * (1 - share) / share)} left")
    return " · ".join(parts)


def _share(progress: Progress, target: int) -> float:
    """The finished share of the run, by its last slow stage. Later stages wait for the order of batches."""
    if target:
        return progress.alive.get(Stage.VALIDATE_COMPILE, 0) / target
    return progress.done.get(Stage.VALIDATE_COMPILE, 0) / progress.planned if progress.planned else 0.0


def _spend(progress: Progress, target: int) -> list[str]:
    """Calls, calls per minute, and cost: spent so far, and expected for the whole run."""
    spend = progress.spend
    if spend is None or not spend.calls:
        return []
    calls = f"{spend.calls} calls, {spend.calls_per_minute:.0f} a minute"
    if spend.cost_usd is None:
        return [calls, "unpriced"]
    # Answers of this session, or finished candidates of all sessions, whichever is more.
    asked = max(spend.answered, progress.done.get(Stage.LLM, 0))
    if not asked:
        return [calls, f"${spend.cost_usd:.2f}"]
    whole = spend.cost_usd * max(_expected(progress, target) / asked, 1.0)
    return [calls, f"${spend.cost_usd:.2f} of about ${whole:.2f}"]


def _expected(progress: Progress, target: int) -> float:
    """The expected number of attempts. With a target, the yield so far decides."""
    judged, alive = (each.get(Stage.VALIDATE_COMPILE, 0) for each in (progress.done, progress.alive))
    return max(progress.planned, target * judged / alive if alive else 0.0)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
