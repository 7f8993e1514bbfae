"""A store of answers, so that no question is paid for twice. All runs of a user share it.

The store is content-addressed: its key is the hash of the question (operators, prompt, provider, server,
model, parameters, sample number). So the batch and the run do not matter. `max_tokens` is not in the key: the
store holds complete answers only, and these stay valid under a higher limit. It is one SQLite file in WAL
mode, so many processes may read and write at once. An answer is on disk before it counts as received.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth_core.atomic import open_shared
from synth_core.errors import EnvironmentFault
from synth_core.records import Usage, sha256

FILE_NAME = "answers.sqlite"
_ROWS_PER_STEP, _PAGES_PER_STEP = 100, 500  # one step of `prune` takes a few milliseconds

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, provider TEXT NOT NULL, model TEXT NOT NULL, signature TEXT NOT NULL,
    created REAL NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Answer:
    """A complete answer as it was received, with its cost at that time."""

    text: str
    serving_model: str
    finish_reason: str
    usage: Usage


@dataclass(frozen=True)
class Stored:
    """Statistics of one model's answers in the store."""

    provider: str
    model: str
    answers: int
    bytes: int
    oldest: float  # seconds since the epoch
    newest: float


def answer_key(**asked: Any) -> str:
    """The key of a question: a hash of names and values. The order of the arguments does not matter."""
    return sha256(json.dumps(asked, sort_keys=True))


class AnswerStore:
    """An open store. Use it in one thread; other threads and processes open their own."""

    def __init__(self, cache_dir: str | Path) -> None:
        folder = Path(cache_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = open_shared(folder / FILE_NAME, _SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise EnvironmentFault(f"cannot open the answer cache {folder / FILE_NAME}: {error}") from None

    def get(self, key: str) -> Answer | None:
        """The stored answer, or None."""
        row = self._database.execute("SELECT body FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        values = json.loads(zlib.decompress(row[0]))
        return Answer(**{**values, "usage": Usage.model_validate(values["usage"])})

    def put(self, key: str, answer: Answer, *, provider: str, model: str, signature: str) -> None:
        """Store an answer. It is on disk when this returns. An existing answer is not replaced.

        Raises `EnvironmentFault` if the file cannot be written.
        """
        values = {**vars(answer), "usage": answer.usage.model_dump()}
        body = zlib.compress(json.dumps(values).encode(), 6)
        row = (key, provider, model, signature, time.time(), body)
        try:
            self._database.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise EnvironmentFault(f"cannot write to the answer cache: {error}") from None

    def list(self) -> list[Stored]:
        """Statistics for each provider and model."""
        rows = self._database.execute(
            "SELECT provider, model, count(*), sum(length(body)), min(created), max(created)"
            " FROM answers GROUP BY provider, model ORDER BY provider, model"
        )
        return [Stored(*row) for row in rows]

    def prune(self, *, older_than_s: float = 0.0, model: str = "") -> int:
        """Delete answers older than `older_than_s` seconds. Returns how many were deleted.

        model: delete answers of this model only.
        A run that writes at the same time must wait, and its event loop waits too. So this works in steps of
        a few milliseconds, with a rest of equal length after each.
        Raises `EnvironmentFault` if the file cannot be written.
        """
        which = "key > ? AND created <= ? AND (? = '' OR model = ?)"
        last, rest, deleted = "", (time.time() - older_than_s, model, model), 0
        try:
            while True:
                keys = self._database.execute(
                    f"SELECT key FROM answers WHERE {which} ORDER BY key LIMIT {_ROWS_PER_STEP}",
                    (last, *rest),
                ).fetchall()
                if not keys:
                    break
                with _rest_as_long():
                    self._database.execute(
                        f"DELETE FROM answers WHERE {which} AND key <= ?", (last, *rest, keys[-1][0])
                    )
                last, deleted = keys[-1][0], deleted + len(keys)
            self._shrink()
        except sqlite3.Error as error:
            raise EnvironmentFault(f"cannot write to the answer cache: {error}") from None
        return deleted

    def _shrink(self) -> None:
        """Shrink the file. A file from before `auto_vacuum` was set does not shrink; it reuses the space."""
        before, left = None, self._free_pages()
        while left and left != before:
            with _rest_as_long():
                self._database.execute(f"PRAGMA incremental_vacuum({_PAGES_PER_STEP})").fetchall()
            before, left = left, self._free_pages()
        self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _free_pages(self) -> int:
        return int(self._database.execute("PRAGMA freelist_count").fetchone()[0])

    def close(self) -> None:
        self._database.close()


@contextmanager
def _rest_as_long() -> Iterator[None]:
    """Rest as long as the body took, so that other processes can write half of the time."""
    began = time.monotonic()
    yield
    time.sleep(max(0.001, time.monotonic() - began))
