"""`synth cache`: what the answer and verdict caches hold, and how to make room."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from synth_core.providers.answers import AnswerStore
from synth_core.settings import Settings

_DAY = 86_400.0


def show(settings: Settings, *, as_json: bool) -> None:
    """List the kept answers by provider and model, and the size of the verdicts."""
    folder = Path(settings.resolved().cache_dir)
    store = AnswerStore(folder)
    rows = [vars(row) for row in store.list()]
    store.close()
    verdicts = [path.stat().st_size for path in folder.glob("verdicts/*/*.json")]
    if as_json:
        for row in rows:
            print(json.dumps({"kind": "answers", **row}))
        print(json.dumps({"kind": "verdicts", "verdicts": len(verdicts), "bytes": sum(verdicts)}))
        return
    table = Table("kind", "provider", "model", "kept", "MiB", "newest")
    for row in rows:
        newest = time.strftime("%Y-%m-%d", time.gmtime(row["newest"]))
        size = f"{row['bytes'] / 2**20:.1f}"
        table.add_row("answers", row["provider"], row["model"], str(row["answers"]), size, newest)
    table.add_row("verdicts", "", "", str(len(verdicts)), f"{sum(verdicts) / 2**20:.1f}", "")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"in {folder}", soft_wrap=True)


def prune(settings: Settings, older_than_days: float, model: str) -> None:
    """Forget answers (of one model, if named) and, with no model named, verdicts older than an age."""
    folder = Path(settings.resolved().cache_dir)
    store = AnswerStore(folder)
    answers = store.prune(older_than_s=older_than_days * _DAY, model=model)
    store.close()
    verdicts = 0
    if not model:
        limit = time.time() - older_than_days * _DAY
        for path in folder.glob("verdicts/*/*.json"):
            if path.stat().st_mtime <= limit:
                path.unlink(missing_ok=True)
                verdicts += 1
    Console(highlight=False).print(f"forgot {answers} answers and {verdicts} verdicts")
