"""Files that several processes write: they appear whole or not at all, or are a shared SQLite file."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Final

from synth_core.errors import EnvironmentFault

# No reader looks for this ending, whatever the file is to be: a kill leaves the temporary behind.
_PREFIX, _SUFFIX = ".tmp-", ".tmp"
# What network file systems answer that know nothing of it.
_CANNOT_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)

_BUSY_SECONDS: Final = 60.0
_SQLITE_TRIES: Final = 100
_SQLITE_PAUSE: Final = 0.05


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put `data` at `path` so that a reader, or a kill at any moment, sees the old file or the new one.

    durable: also after a power cut; without it the file may be empty or gone then.
    Creates missing folders. Raises `EnvironmentFault` (disk full, no permission); nothing that was there
    before is touched then.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_PREFIX, suffix=_SUFFIX)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp's 0600 would shut out other users' jobs
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except BaseException as error:  # an interrupt too
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise EnvironmentFault(f"cannot write {path}: {error.strerror or error}") from None
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete what writers that were killed have left in a folder that nobody else writes to now."""
    for path in folder.glob(f"{_PREFIX}*"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, on file systems that can. Raises `EnvironmentFault`."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise EnvironmentFault(f"cannot write {folder}: {error.strerror or error}") from None


def open_shared(path: Path, schema: str) -> sqlite3.Connection:
    """Open or create a SQLite file in WAL mode: many threads and processes may read and write it at once.

    schema: statements that may be run again.

    Transactions are the caller's to begin. What is committed survives kill -9; a power cut may lose the last,
    and corrupts nothing. Raises sqlite3.Error.
    """
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    for tries_left in range(_SQLITE_TRIES, -1, -1):
        try:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded in a new file only
            # Switching to WAL ignores the busy timeout: of two who create a file, one is told it is locked.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(schema)
        except sqlite3.Error as error:
            if not tries_left or "locked" not in str(error):
                database.close()
                raise
            time.sleep(_SQLITE_PAUSE)
        else:
            break
    return database


def _read_umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


_UMASK = _read_umask()  # read once at import: os.umask is process-wide, so not safe between threads
