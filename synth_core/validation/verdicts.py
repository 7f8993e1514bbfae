"""What was judged once: judgements by the hash of all that they depend on, one small file each."""

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
"""What another hour may judge otherwise: it depends on how busy the machine is."""


class VerdictCache:
    """Safe under threads and processes: files appear whole or not at all. With no folder it keeps nothing."""

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
        """A full disk costs only the saving."""
        if self._folder is None or judgement.get("category") in _NOT_KEPT:
            return
        with contextlib.suppress(EnvironmentFault):
            write_atomic(self._path(self._folder, key), json.dumps(judgement).encode(), durable=False)

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key[2:]}.json"


@cache
def code_version() -> str:
    """Hash of the code that judges, of its catalog and what names the class: by these verdicts go stale."""
    package = Path(__file__).parents[1]
    rooms = ("validation/**", "graph", "operators", "program")
    sources = [package / "records.py", *(path for room in rooms for path in package.glob(f"{room}/*.py"))]
    return sha256("".join(path.read_text() for path in sorted(sources)))
