"""Files that several processes write: they appear completely or not at all, or are shared SQLite files."""

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

# A killed writer leaves its temporary file behind. No reader looks for files with these names.
_PREFIX, _SUFFIX = ".tmp-", ".tmp"
# Errors of network file systems that do not support fsync on folders.
_CANNOT_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)

_BUSY_SECONDS: Final = 60.0
_SQLITE_TRIES: Final = 100
_SQLITE_PAUSE: Final = 0.05


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path` atomically. Readers see the old file or the new one, even after a kill.

    Missing folders are created.

    durable: the file also survives a power failure. Without this, it may then be empty or missing.
    Raises `EnvironmentFault` (disk full, no permission). The old file then stays as it was.
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
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp sets 0600, which other users' jobs could not read
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
    """Delete temporary files of killed writers. No other process may write to the folder meanwhile."""
    for path in folder.glob(f"{_PREFIX}*"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure, if the file system supports it.

    Raises `EnvironmentFault`.
    """
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
    """Open or create a SQLite file in WAL mode, which many threads and processes may read and write at once.

    The caller begins transactions. Committed data survives kill -9. A power failure may lose the last
    transactions, but does not corrupt the file.

    schema: SQL statements. They run at each opening, so they must be repeatable.
    Raises sqlite3.Error.
    """
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    for tries_left in range(_SQLITE_TRIES, -1, -1):
        try:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # takes effect in a new file only
            # The switch to WAL ignores the busy timeout: if two processes create the file, one gets "locked".
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


_UMASK = _read_umask()  # at import, because os.umask changes the whole process and is not thread-safe
