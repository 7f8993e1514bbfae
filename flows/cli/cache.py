"""`synth cache`: show what the caches and the shards of a folder take up, or delete old entries."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.prefect_server.locks import lock_run
from synth_core.errors import UsageError
from synth_core.providers.answers import AnswerStore
from synth_core.settings import Settings
from synth_core.store import run_ids
from synth_core.store.pruning import drop_shards, held

_DAY = 86_400.0


def show(settings: Settings, *, as_json: bool) -> None:
    """List the cached answers by provider and model, the size of the verdicts, and the size of the shards."""
    folder = Path(settings.resolved().cache_dir)
    store = AnswerStore(folder)
    rows = [vars(row) for row in store.list()]
    store.close()
    verdicts = [path.stat().st_size for path in folder.glob("verdicts/*/*.json")]
    shards = held(settings.output_dir)
    if as_json:
        for row in rows:
            print(json.dumps({"kind": "answers", **row}))
        print(json.dumps({"kind": "verdicts", "verdicts": len(verdicts), "bytes": sum(verdicts)}))
        print(json.dumps({"kind": "shards", **shards._asdict()}))
        return
    table = Table("kind", "provider", "model", "kept", "MiB", "newest")
    for row in rows:
        newest = time.strftime("%Y-%m-%d", time.gmtime(row["newest"]))
        size = f"{row['bytes'] / 2**20:.1f}"
        table.add_row("answers", row["provider"], row["model"], str(row["answers"]), size, newest)
    table.add_row("verdicts", "", "", str(len(verdicts)), f"{sum(verdicts) / 2**20:.1f}", "")
    table.add_row("shards", "", "", str(shards.files), f"{shards.bytes / 2**20:.1f}", "")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"answers and verdicts in {folder}; shards in {settings.output_dir}", soft_wrap=True)


def prune(settings: Settings, older_than_days: float, model: str) -> None:
    """Delete old entries: answers, verdicts, and shards that no run of the folder needs any more.

    If a model is named, delete only answers of that model. Shards go only if the settings name a folder.
    """
    folder, age = Path(settings.resolved().cache_dir), older_than_days * _DAY
    with_shards = "output_dir" in settings.model_fields_set and not model
    if with_shards and not run_ids(settings.output_dir):
        raise UsageError(f"{settings.output_dir} contains no run")
    store = AnswerStore(folder)
    answers = store.prune(older_than_s=age, model=model)
    store.close()
    verdicts = 0 if model else _delete_verdicts(folder, time.time() - age)
    console = Console(highlight=False)
    console.print(f"deleted {answers} answers and {verdicts} verdicts")
    if with_shards:
        dropped, unfinished = drop_shards(settings.output_dir, age, lock_run)
        console.print(f"deleted {dropped.files} shards and results, {dropped.bytes / 2**20:.1f} MiB")
        if unfinished:
            kept = f"kept the shards of runs that `synth resume` can continue: {', '.join(unfinished)}"
            console.print(kept, soft_wrap=True)


def _delete_verdicts(folder: Path, limit: float) -> int:
    """Delete old verdicts and return their number. Half-written files, left by a kill, do not count."""
    verdicts = 0
    for path in folder.glob("verdicts/*/*"):
        with contextlib.suppress(FileNotFoundError):  # another prune was faster
            if path.stat().st_mtime <= limit:
                path.unlink()
                verdicts += path.suffix == ".json"
    return verdicts
