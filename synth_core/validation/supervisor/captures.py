"""Captured graphs of the eager stage, kept for the compile stage of the same texts."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Final

MOST: Final = 256
"""Files that are kept open."""
MOST_BYTES: Final = 256 * 2**20


class Captures:
    """Sealed evidence by the hash of a text without its name. The oldest goes first."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0

    def keep(self, text: str, file: int) -> None:
        """Keep a copy of the descriptor."""
        size = os.fstat(file).st_size
        if not text or text in self._files or size > MOST_BYTES:
            return
        self._files[text] = os.dup(file)
        self._bytes += size
        while len(self._files) > MOST or self._bytes > MOST_BYTES:
            self._drop(next(iter(self._files)))

    def take(self, text: str) -> int | None:
        """A descriptor for the caller to close. None: it was never kept, or it is gone."""
        file = self._files.get(text)
        return None if file is None else os.dup(file)

    def close(self) -> None:
        for text in list(self._files):
            self._drop(text)

    def _drop(self, text: str) -> None:
        file = self._files.pop(text)
        self._bytes -= os.fstat(file).st_size
        os.close(file)
