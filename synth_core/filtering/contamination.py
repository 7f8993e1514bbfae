"""Look through folders of programs, ours or anyone's, for what is like a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from synth_core.errors import UsageError
from synth_core.filtering.fingerprints import Fingerprints
from synth_core.filtering.reference import Problem, Reference, kernelbench
from synth_core.records import Record


class ScanResult(Record):
    """One file. Of a clean one, `score` and `reference` tell the most alike problem of the same operators."""

    path: str
    contaminated: bool
    tier: str
    reference: str
    score: float


def scan(paths: Iterable[Path | str], reference: Reference | None = None) -> Iterator[ScanResult]:
    """Compare every `*.py` under the paths with the reference (KernelBench by default), a file at a time.

    No program is run, so its graph is not compared. A text that is no Python is like nothing; one that takes
    too much to compare (tier `unreadable`) counts as contaminated. Raises `UsageError` for a path that is
    not there.
    """
    reference = reference or kernelbench()
    for path in python_files(paths):
        prints = Fingerprints.of(path.read_text(encoding="utf-8", errors="replace"))
        match = reference.match(prints)
        near = match or reference.nearest(prints)
        yield ScanResult(
            path=str(path),
            contaminated=match is not None or bool(prints.unreadable),
            tier=match.tier if match else "unreadable" if prints.unreadable else "",
            reference=near.problem if near else "",
            score=round(near.score, 3) if near else 0.0,
        )


def reference_of(paths: Iterable[Path | str]) -> Reference:
    """A reference made of programs of your own: a held-out set that must not be trained on."""
    return Reference.of(
        Problem.of(path.stem, path.read_text(encoding="utf-8", errors="replace"))
        for path in python_files(paths)
    )


def python_files(paths: Iterable[Path | str]) -> Iterator[Path]:
    """The files named, and every `*.py` of the folders named, hidden folders left out."""
    for path in map(Path, paths):
        if path.is_dir():
            found = (file for file in path.rglob("*.py") if not _hidden(file.relative_to(path)))
            yield from sorted(found)
        elif path.exists():
            yield path
        else:
            raise UsageError(f"no file or folder {path}")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
