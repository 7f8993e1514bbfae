"""Take stock of a folder: programs that the index does not know become claims."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from synth_core.filtering.fingerprints import Fingerprints
from synth_core.filtering.index import Claim, Claims
from synth_core.naming import operators_named
from synth_core.records import Candidate, operator_signature
from synth_core.store import hidden_folder, scan_ledger


def index_path(output_dir: Path) -> Path:
    return hidden_folder(output_dir) / "index.sqlite"


def take_stock(claims: Claims, folder: Path, run_id: str) -> None:
    """Once a run: an empty index learns the accepted rows of all ledgers, oldest first, and any index the
    program files that it does not know (copied in by hand, or by a version before the index)."""
    if not claims.mark_synced(run_id):
        return
    known = claims.programs()
    if not known:
        claims.claim(_of_ledgers(folder))
        known = claims.programs()
    claims.claim(_of_files(folder, known))


def _of_ledgers(folder: Path) -> Iterator[tuple[str, str, Claim]]:
    rows = scan_ledger(folder).filter(pl.col("accepted")).select("run_id", "record").collect()
    for run_id, record in rows.iter_rows():
        candidate = Candidate.model_validate_json(record)
        assert candidate.program is not None
        owner = Claim(run_id, candidate.id, candidate.program.name)
        for kind, key in Fingerprints.of(candidate).keys().items():
            yield kind, key, owner


def _of_files(folder: Path, known: set[str]) -> Iterator[tuple[str, str, Claim]]:
    for path in sorted(folder.glob("*.py")):
        operators = operators_named(path.stem)
        if path.stem not in known and operators:
            yield "operators", operator_signature(operators), Claim("", "", path.stem)
