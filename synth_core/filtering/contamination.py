"""Scans folders of programs, from Synth or from anyone, for similarity to a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from synth_core.errors import UsageError
from synth_core.filtering.fingerprints import Fingerprints
from synth_core.filtering.reference import Problem, Reference, kernelbench
from synth_core.records import Record


class ScanResult(Record):
    """The result for one file.

    reference: the benchmark problem that it matches. For a clean file: the most similar problem with the same
        set of operators, or empty.
    score: similarity to that problem, from 0 to 1.
    tier: how it matches: text, form, operators, graph or near. Empty for a clean file.
    """

    path: str
    contaminated: bool
    tier: str
    reference: str
    score: float


def scan(paths: Iterable[Path | str], reference: Reference | None = None) -> Iterator[ScanResult]:
    """Compare every `*.py` file under the paths with the reference (default: KernelBench), one by one.

    No program is run, so graphs are not compared. A text that is not Python matches nothing. A text that
    takes too much to compare (tier `unreadable`) counts as contaminated.
    Raises `UsageError` for a path that does not exist.
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
    """Make a reference from your own programs, for example a held-out set that must not be trained on."""
    return Reference.of(
        Problem.of(path.stem, path.read_text(encoding="utf-8", errors="replace"))
        for path in python_files(paths)
    )


def python_files(paths: Iterable[Path | str]) -> Iterator[Path]:
    """The given files, and every `*.py` in the given folders. Hidden files and folders are skipped."""
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
