"""The index of a folder: one SQLite file of claims, shared by all runs that write to the folder.

A claim says that a fingerprint (`kind`, `key`) belongs to one candidate of one run. The first to claim keeps
it. The claims of a batch are written in one transaction, so two runs may share a folder. The file is a cache:
if it is missing, it is built again from the ledgers and the program files.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from synth_core.atomic import open_shared
from synth_core.errors import EnvironmentFault
from synth_core.filtering.fingerprints import Fingerprints

_SCHEMA = """
CREATE TABLE IF NOT EXISTS claims (
    kind TEXT, key TEXT, run_id TEXT, candidate_id TEXT, program TEXT, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sketches (
    program TEXT PRIMARY KEY, run_id TEXT, candidate_id TEXT, operator_set TEXT, sketch BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sketches_by_set ON sketches (operator_set);
CREATE TABLE IF NOT EXISTS synced (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_FORM = 1  # increase it when fingerprints change: an index with another number is built again


class Claim(NamedTuple):
    """Who holds a fingerprint. `run_id` is empty for a file that is in no ledger."""

    run_id: str
    candidate_id: str
    program: str


class Claims:
    """The claims of a folder, within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def holder(self, kind: str, key: str) -> Claim | None:
        """The claim on a fingerprint, or None."""
        query = "SELECT run_id, candidate_id, program FROM claims WHERE kind = ? AND key = ?"
        row = self._connection.execute(query, (kind, key)).fetchone()
        return Claim(*row) if row else None

    def sketches(self, operator_set: str) -> list[tuple[bytes, Claim]]:
        """The sketches of all programs with this set of operators, and their claims."""
        query = "SELECT sketch, run_id, candidate_id, program FROM sketches WHERE operator_set = ?"
        rows = self._connection.execute(query, (operator_set,))
        return [(sketch, Claim(*owner)) for sketch, *owner in rows]

    def claim(self, prints: Fingerprints, owner: Claim) -> None:
        """Claim a program's fingerprints. Claims of other candidates stay; claims of unknown files do not."""
        self._connection.executemany(
            "INSERT INTO claims VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET run_id = excluded.run_id, "
            "candidate_id = excluded.candidate_id, program = excluded.program WHERE claims.run_id = ''",
            ((kind, key, *owner) for kind, key in prints.keys().items()),
        )
        if prints.sketch:
            self._connection.execute(
                "INSERT OR REPLACE INTO sketches VALUES (?, ?, ?, ?, ?)",
                (owner.program, owner.run_id, owner.candidate_id, prints.operator_set(), prints.sketch),
            )

    def programs(self) -> set[str]:
        """The names of all programs in the index."""
        return {
            row[0]
            for row in self._connection.execute(
                "SELECT program FROM sketches UNION SELECT program FROM claims"
            )
        }

    def mark_synced(self, run_id: str) -> bool:
        """True at the first call of a run, which must then add the folder's programs to the index."""
        cursor = self._connection.execute("INSERT OR IGNORE INTO synced VALUES (?)", (run_id,))
        return cursor.rowcount == 1


@contextlib.contextmanager
def claims_of(path: Path) -> Iterator[Claims]:
    """A write transaction on the index at `path`: committed at the end, rolled back on an exception.

    Waits for other runs' transactions. Raises `EnvironmentFault` if the file cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(open_shared(path, _SCHEMA)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                _clear_old_form(connection)
                yield Claims(connection)
    except (sqlite3.Error, OSError) as error:
        raise EnvironmentFault(f"cannot use the index {path}: {error}; deleting it is safe") from None


def _clear_old_form(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone() != (_FORM,):
        for table in ("claims", "sketches", "synced"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute(f"PRAGMA user_version = {_FORM}")
