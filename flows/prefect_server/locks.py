"""File locks that the kernel releases when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from synth_core.errors import EnvironmentFault


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to hold the lock during the block. Yields False at once if another process holds it.

    Raises `EnvironmentFault` if the lock file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EnvironmentFault(f"cannot write {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(handle)


def lock_run(folder: Path) -> AbstractContextManager[bool]:
    """Hold the lock of the run in that folder. Whoever works on a run holds its lock."""
    return try_lock(folder / "lock")
