"""The verdict cache: one small file per judgement, named by the hash of all that it depends on."""

from __future__ import annotations

import contextlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from synth_core.atomic import write_atomic
from synth_core.errors import EnvironmentFault
from synth_core.records import Category, sha256

_NOT_KEPT = (Category.TIMEOUT, Category.OUT_OF_MEMORY, Category.CRASH)
"""Not kept, because they may depend on how busy the machine is."""


class VerdictCache:
    """Safe for threads and processes: a file appears whole or not at all. Without a folder: keeps nothing."""

    def __init__(self, folder: str | None) -> None:
        self._folder = Path(folder) / "verdicts" if folder else None

    def find(self, key: str) -> dict[str, Any] | None:
        if self._folder is None:
            return None
        try:
            found: dict[str, Any] = json.loads(self._path(self._folder, key).read_bytes())
        except (OSError, ValueError):
            return None
        return found

    def keep(self, key: str, judgement: dict[str, Any]) -> None:
        """If the disk is full, the judgement is not kept; that is no error."""
        if self._folder is None or judgement.get("category") in _NOT_KEPT:
            return
        with contextlib.suppress(EnvironmentFault):
            write_atomic(self._path(self._folder, key), json.dumps(judgement).encode(), durable=False)

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key[2:]}.json"


@cache
def code_version() -> str:
    """Hash of the code that judges, of the catalog, and of the code that names the class."""
    package = Path(__file__).parents[1]
    rooms = ("validation/**", "graph", "operators", "program")
    sources = [package / "records.py", *(path for room in rooms for path in package.glob(f"{room}/*.py"))]
    return sha256("".join(path.read_text() for path in sorted(sources)))
