"""Adds the programs of a folder that the index does not know, as claims."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from synth_core.filtering.fingerprints import Fingerprints
from synth_core.filtering.index import Claim, Claims, claims_of
from synth_core.program.naming import operators_named
from synth_core.store import accepted_programs, hidden_folder


def index_path(output_dir: Path) -> Path:
    return hidden_folder(output_dir) / "index.sqlite"


@contextlib.contextmanager
def claims_in(folder: Path, run_id: str) -> Iterator[Claims]:
    """A transaction on the folder's index (see `claims_of`), with all programs from before the run began.

    Raises `EnvironmentFault` if the index cannot be used.
    """
    with claims_of(index_path(folder)) as claims:
        _add_unknown(claims, folder, run_id)
        yield claims


def _add_unknown(claims: Claims, folder: Path, run_id: str) -> None:
    """Once per run, add the folder's programs to the index.

    An empty index gets the accepted rows of all ledgers, oldest first. Every index gets the program files
    that it does not know: files copied by hand, or written by a version without an index.
    """
    if not claims.mark_synced(run_id):
        return
    if not claims.programs():
        for owner, prints in _of_ledgers(folder):
            claims.claim(prints, owner)
    for owner, prints in _of_files(folder, claims.programs()):
        claims.claim(prints, owner)


def _of_ledgers(folder: Path) -> Iterator[tuple[Claim, Fingerprints]]:
    for run_id, candidate in accepted_programs(folder):
        assert candidate.program is not None
        prints = Fingerprints.of(candidate.program.source, candidate.graph)
        yield Claim(run_id, candidate.id, candidate.program.name), prints


def _of_files(folder: Path, known: set[str]) -> Iterator[tuple[Claim, Fingerprints]]:
    for path in sorted(folder.glob("*.py")):
        if path.stem not in known:
            prints = Fingerprints.of(path.read_text(encoding="utf-8", errors="replace"))
            named = operators_named(path.stem) or prints.operators
            yield Claim("", "", path.stem), dataclasses.replace(prints, operators=named)
