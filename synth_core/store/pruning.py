"""Measures and deletes the shards of a folder. A completed run no longer needs its shards."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from synth_core.errors import UsageError
from synth_core.store.runs import RunState, hidden_folder, load_run, run_folder, run_ids, save_run
from synth_core.store.settled import read_settled

# Shards, Prefect's records of the task runs that made them, and temporary files of killed writers.
_PLACES = ("shards/**/*", "results/**/*", ".tmp-*")
# Seconds; a killed run may have written shards for up to this long after the last file in its own folder.
_MARGIN = 3600.0


class Held(NamedTuple):
    """Disk use: a number of files and their bytes."""

    files: int
    bytes: int


class _Life(NamedTuple):
    """When a run worked and how it ended.

    began, ended: seconds since the epoch; `ended` is infinite while the run works.
    over: it completed so long ago that its shards may be deleted.
    """

    run_id: str
    began: float
    ended: float
    completed: bool
    over: bool


Hold = Callable[[Path], AbstractContextManager[bool]]


def held(output_dir: Path | str) -> Held:
    """The disk use of a folder's shards and results."""
    sizes = []
    for path in _files(output_dir):
        with contextlib.suppress(FileNotFoundError):  # a run may replace the file at any time
            sizes.append(path.stat().st_size)
    return Held(len(sizes), sum(sizes))


def drop_shards(output_dir: Path | str, older_than_s: float, hold: Hold) -> tuple[Held, list[str]]:
    """Delete shards and results that were not used for `older_than_s` seconds.

    Shards of a run that can be resumed stay, at any age. Programs, ledgers and run records stay too. A run
    that completed more than `older_than_s` ago is marked as pruned: to resume it would repeat all its work.

    hold: takes the lock of a run folder. It yields False if another process holds the lock.
    Returns what was deleted, and the ids of the runs that can be resumed.
    Raises `EnvironmentFault` if a run record cannot be written.
    """
    limit = time.time() - older_than_s
    lives = [_life(output_dir, run_id, limit, hold) for run_id in run_ids(output_dir)]
    kept = [life for life in lives if not life.over]
    final = {key for life in kept for key in read_settled(output_dir, life.run_id).values()}
    spans = [(limit, math.inf), *((life.began, life.ended) for life in kept)]
    dropped = Held(0, 0)
    for path in _files(output_dir):
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()  # here, because a run may have used the file since this loop began
            if path.stem not in final and not any(start < facts.st_mtime <= end for start, end in spans):
                path.unlink()
                dropped = Held(dropped.files + 1, dropped.bytes + facts.st_size)
    return dropped, [life.run_id for life in kept if not life.completed]


def _files(output_dir: Path | str) -> list[Path]:
    return [path for place in _PLACES for path in hidden_folder(output_dir).glob(place) if path.is_file()]


def _life(output_dir: Path | str, run_id: str, limit: float, hold: Hold) -> _Life:
    """Read a run, and mark it as pruned if it is over. This holds its lock, so that nobody can resume it."""
    folder = run_folder(output_dir, run_id)
    signs = [path.stat().st_mtime for path in folder.iterdir() if path.name != "lock"]
    with hold(folder) as free:
        last = max(signs) + _MARGIN if free else math.inf
        try:
            run = load_run(output_dir, run_id)
        except UsageError:  # another version wrote it, and that version may resume it
            return _Life(run_id, min(signs), last, completed=False, over=False)
        ended = run.ended.timestamp() if run.ended else last
        completed = run.state is RunState.COMPLETED
        over = free and completed and ended <= limit
        if over and not run.pruned:
            save_run(run.model_copy(update={"pruned": True}))
    return _Life(run_id, run.started.timestamp(), ended, completed, over)
