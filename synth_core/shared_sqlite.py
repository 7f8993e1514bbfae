"""A SQLite file that many threads and processes read and write at once."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

_BUSY_SECONDS: Final = 60.0
_TRIES: Final = 100
_PAUSE: Final = 0.05


def open_shared(path: Path, schema: str) -> sqlite3.Connection:
    """Open or create the file in WAL mode, with `schema` (statements that bear being run again) in it.

    Transactions are the caller's to begin. What is committed survives kill -9; a power cut may lose the last,
    and corrupts nothing. Raises sqlite3.Error.
    """
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    for tries_left in range(_TRIES, -1, -1):
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
            time.sleep(_PAUSE)
        else:
            break
    return database
