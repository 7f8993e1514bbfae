"""What the shards of a folder take, and how to make room: a run that has completed needs them no more."""

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

# Shards, Prefect's records of the task runs that made them, and what a killed writer of programs left.
_PLACES = ("shards/**/*", "results/**/*", ".tmp-*")
# Seconds; a run that was killed had noted something in its folder not so long before its last shard.
_AFTER_THE_LAST_SIGN = 3600.0


class Held(NamedTuple):
    files: int
    bytes: int


class _Life(NamedTuple):
    """A run's time at work, in seconds since the epoch, without end while it is at work; what became of it.

    over: it completed so long ago that none of its shards is wanted.
    """

    run_id: str
    began: float
    ended: float
    completed: bool
    over: bool


Hold = Callable[[Path], AbstractContextManager[bool]]


def held(output_dir: Path | str) -> Held:
    """What shards and results take in a folder."""
    sizes = []
    for path in _files(output_dir):
        with contextlib.suppress(FileNotFoundError):  # a run may replace it meanwhile
            sizes.append(path.stat().st_size)
    return Held(len(sizes), sum(sizes))


def drop_shards(output_dir: Path | str, older_than_s: float, hold: Hold) -> tuple[Held, list[str]]:
    """Delete shards and results that were of no use for so long; return what went, and the ids of the runs
    that can be resumed, whose own stay however old.

    hold: takes the lock of the run of a folder, if nobody works on it.
    Runs that completed as long ago are marked, for a resume of theirs would do all of it anew. Programs,
    ledgers and records stay. Raises `EnvironmentFault` where a record can't be written.
    """
    limit = time.time() - older_than_s
    lives = [_life(output_dir, run_id, limit, hold) for run_id in run_ids(output_dir)]
    kept = [life for life in lives if not life.over]
    final = {key for life in kept for key in read_settled(output_dir, life.run_id).values()}
    spans = [(limit, math.inf), *((life.began, life.ended) for life in kept)]
    dropped = Held(0, 0)
    for path in _files(output_dir):
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()  # only now: a run may have found it again while others went
            if path.stem not in final and not any(start < facts.st_mtime <= end for start, end in spans):
                path.unlink()
                dropped = Held(dropped.files + 1, dropped.bytes + facts.st_size)
    return dropped, [life.run_id for life in kept if not life.completed]


def _files(output_dir: Path | str) -> list[Path]:
    return [path for place in _PLACES for path in hidden_folder(output_dir).glob(place) if path.is_file()]


def _life(output_dir: Path | str, run_id: str, limit: float, hold: Hold) -> _Life:
    """Read, and marked where it is over, while nobody can go on with the run."""
    folder = run_folder(output_dir, run_id)
    signs = [path.stat().st_mtime for path in folder.iterdir() if path.name != "lock"]
    with hold(folder) as free:
        last = max(signs) + _AFTER_THE_LAST_SIGN if free else math.inf
        try:
            run = load_run(output_dir, run_id)
        except UsageError:  # of another version, which may go on with it
            return _Life(run_id, min(signs), last, completed=False, over=False)
        ended = run.ended.timestamp() if run.ended else last
        completed = run.state is RunState.COMPLETED
        over = free and completed and ended <= limit
        if over and not run.pruned:
            save_run(run.model_copy(update={"pruned": True}))
    return _Life(run_id, run.started.timestamp(), ended, completed, over)
