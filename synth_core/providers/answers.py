"""Answers paid for once: a content-addressed store in the user's cache folder, shared by all runs.

The key is what was asked (operators, prompt, provider, server, model, parameters, sample number), so it is
the same whatever the batch or the run. `max_tokens` is no part of it: only complete answers are kept, and
those stay good when the limit is raised. One SQLite file in WAL mode: many processes may read and write at
once, and an answer is durable before it counts as received.
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
_ROWS_A_PIECE, _PAGES_A_PIECE = 100, 500  # what `prune` does at once: a few milliseconds

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, provider TEXT NOT NULL, model TEXT NOT NULL, signature TEXT NOT NULL,
    created REAL NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Answer:
    """A complete answer as it was received, with what it cost then."""

    text: str
    serving_model: str
    finish_reason: str
    usage: Usage


@dataclass(frozen=True)
class Stored:
    """What the store holds of one model."""

    provider: str
    model: str
    answers: int
    bytes: int
    oldest: float  # seconds since the epoch
    newest: float


def answer_key(**asked: Any) -> str:
    """The key of a question: the same for equal values, in any order."""
    return sha256(json.dumps(asked, sort_keys=True))


class AnswerStore:
    """Open from one thread; other threads and processes open their own."""

    def __init__(self, cache_dir: str | Path) -> None:
        folder = Path(cache_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = open_shared(folder / FILE_NAME, _SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise EnvironmentFault(f"cannot open the answer cache {folder / FILE_NAME}: {error}") from None

    def get(self, key: str) -> Answer | None:
        """The answer kept under `key`, or None."""
        row = self._database.execute("SELECT body FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        values = json.loads(zlib.decompress(row[0]))
        return Answer(**{**values, "usage": Usage.model_validate(values["usage"])})

    def put(self, key: str, answer: Answer, *, provider: str, model: str, signature: str) -> None:
        """Keep an answer; durable when this returns. An answer that is there already stays."""
        values = {**vars(answer), "usage": answer.usage.model_dump()}
        body = zlib.compress(json.dumps(values).encode(), 6)
        row = (key, provider, model, signature, time.time(), body)
        try:
            self._database.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise EnvironmentFault(f"cannot write to the answer cache: {error}") from None

    def list(self) -> list[Stored]:
        """What is kept, by provider and model."""
        rows = self._database.execute(
            "SELECT provider, model, count(*), sum(length(body)), min(created), max(created)"
            " FROM answers GROUP BY provider, model ORDER BY provider, model"
        )
        return [Stored(*row) for row in rows]

    def prune(self, *, older_than_s: float = 0.0, model: str = "") -> int:
        """Forget answers older than an age, of one model if named; returns how many.

        A run that writes meanwhile waits on its event loop, so this works in pieces of a few milliseconds and
        rests as long after each.
        """
        which = "key > ? AND created <= ? AND (? = '' OR model = ?)"
        last, rest, forgotten = "", (time.time() - older_than_s, model, model), 0
        try:
            while True:
                keys = self._database.execute(
                    f"SELECT key FROM answers WHERE {which} ORDER BY key LIMIT {_ROWS_A_PIECE}", (last, *rest)
                ).fetchall()
                if not keys:
                    break
                with _resting():
                    self._database.execute(
                        f"DELETE FROM answers WHERE {which} AND key <= ?", (last, *rest, keys[-1][0])
                    )
                last, forgotten = keys[-1][0], forgotten + len(keys)
            self._give_room_back()
        except sqlite3.Error as error:
            raise EnvironmentFault(f"cannot write to the answer cache: {error}") from None
        return forgotten

    def _give_room_back(self) -> None:
        """Shrink the file. One from before it was made to shrink in pieces only uses the room again."""
        before, left = None, self._free_pages()
        while left and left != before:
            with _resting():
                self._database.execute(f"PRAGMA incremental_vacuum({_PAGES_A_PIECE})").fetchall()
            before, left = left, self._free_pages()
        self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _free_pages(self) -> int:
        return int(self._database.execute("PRAGMA freelist_count").fetchone()[0])

    def close(self) -> None:
        self._database.close()


@contextmanager
def _resting() -> Iterator[None]:
    """Rest as long as what is done inside took, so that half of all moments are others' to write in."""
    began = time.monotonic()
    yield
    time.sleep(max(0.001, time.monotonic() - began))
