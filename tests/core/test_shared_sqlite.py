"""A file that many open at once the moment it comes into being."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from synth_core.atomic import open_shared

SCHEMA = "CREATE TABLE IF NOT EXISTS rows (number INTEGER)"


def test_all_who_create_the_file_at_once_get_it(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def write(path: Path, barrier: threading.Barrier) -> None:
        barrier.wait()
        try:
            with closing(open_shared(path, SCHEMA)) as database:
                database.execute("INSERT INTO rows VALUES (1)")
        except Exception as error:
            errors.append(error)

    for turn in range(20):
        barrier = threading.Barrier(12)
        path = tmp_path / f"{turn}.sqlite"
        threads = [threading.Thread(target=write, args=(path, barrier)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with closing(open_shared(path, SCHEMA)) as database:
            assert database.execute("SELECT count(*) FROM rows").fetchone() == (12,)
    assert not errors


def test_what_is_no_database_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no database, but long enough for a header" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        open_shared(tmp_path / "file", SCHEMA)
