"""What the shards of a folder take, and how to make room: a run that has completed needs them no more."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from synth_core.errors import UsageError
from synth_core.store.runs import RunState, hidden_folder, load_run, run_folder, run_ids, save_run
from synth_core.store.settled import read_settled

# Shards, Prefect's records of the task runs that made them, and what a killed writer of programs left.
_PLACES = ("shards/**/*", "results/**/*", ".tmp-*")


class Held(NamedTuple):
    files: int
    bytes: int


class _Life(NamedTuple):
    """A run's time at work, in seconds since the epoch; without end while it is at work, or was killed."""

    run_id: str
    began: float
    ended: float
    completed: bool


def held(output_dir: Path | str) -> Held:
    """What shards and results take in a folder."""
    sizes = [size for _, size, _ in _files(output_dir)]
    return Held(len(sizes), sum(sizes))


def drop_shards(output_dir: Path | str, older_than_s: float) -> tuple[Held, list[str]]:
    """Delete shards and results that were of no use for so long; return what went, and the ids of the runs
    that can be resumed, whose own stay however old.

    Runs that completed as long ago are marked, for a resume of theirs would do all of it anew. Programs,
    ledgers and records stay. Raises `EnvironmentFault` where a record can't be written.
    """
    limit = time.time() - older_than_s
    lives = [_life(output_dir, run_id) for run_id in run_ids(output_dir)]
    over = [life for life in lives if life.completed and life.ended <= limit]
    for life in over:
        _mark(output_dir, life.run_id)
    kept = [life for life in lives if life not in over]
    final = {key for life in kept for key in read_settled(output_dir, life.run_id).values()}
    spans = [(limit, math.inf), *((life.began, life.ended) for life in kept)]
    dropped = Held(0, 0)
    for path, size, used in list(_files(output_dir)):
        if path.stem not in final and not any(start < used <= end for start, end in spans):
            path.unlink(missing_ok=True)
            dropped = Held(dropped.files + 1, dropped.bytes + size)
    return dropped, [life.run_id for life in kept if not life.completed]


def _files(output_dir: Path | str) -> Iterator[tuple[Path, int, float]]:
    """Path, bytes, and when it was made or last found again by a run."""
    for place in _PLACES:
        for path in hidden_folder(output_dir).glob(place):
            with contextlib.suppress(FileNotFoundError):  # a run may replace it meanwhile
                if path.is_file():
                    yield path, path.stat().st_size, path.stat().st_mtime


def _life(output_dir: Path | str, run_id: str) -> _Life:
    try:
        run = load_run(output_dir, run_id)
    except UsageError:  # of another version, which may go on with it
        times = [path.stat().st_mtime for path in run_folder(output_dir, run_id).iterdir()]
        return _Life(run_id, min(times), max(times), completed=False)
    ended = run.ended.timestamp() if run.ended else math.inf
    return _Life(run_id, run.started.timestamp(), ended, run.state is RunState.COMPLETED)


def _mark(output_dir: Path | str, run_id: str) -> None:
    run = load_run(output_dir, run_id)
    if not run.pruned:
        save_run(run.model_copy(update={"pruned": True}))
