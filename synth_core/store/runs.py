"""The record of a run: its settings, the versions it used, its times and how it ended.

The file is `output_dir/.synth/runs/<run_id>/run.json`, next to the run's ledger. So a folder of programs
always shows their origin, and `synth resume` needs only the folder.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from synth_core import __version__
from synth_core.atomic import remove_leftovers, write_atomic
from synth_core.errors import UsageError
from synth_core.prompting import own_text, whole_name
from synth_core.records import Record
from synth_core.settings import Settings
from synth_core.strategies import Strategy, effective_strategies

_PACKAGES = ("torch", "triton", "prefect", "polars", "openai", "google-genai")


class RunState(StrEnum):
    RUNNING = "running"  # or killed: a killed run cannot update its record
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    BUDGET_SPENT = "ended by its budget"


class Run(Record):
    """One run. Times are UTC. `settings` are resolved: the seed is drawn and paths are absolute.

    strategies: as planned. A later edit of a file or a new default does not change them.
    prompts: contents of the user's own prompt files when the run was planned, by path.
    """

    run_id: str
    settings: Settings
    strategies: tuple[dict[str, Any], ...] = ()
    prompts: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str]
    flow_run_id: str = ""
    started: datetime
    ended: datetime | None = None
    state: RunState = RunState.RUNNING
    takeovers: int = Field(default=0, description="How often in a row a scheduled run has resumed it")
    pruned: bool = Field(default=False, description="Its shards were deleted, so it cannot be resumed")

    @property
    def output_dir(self) -> Path:
        return Path(self.settings.output_dir)

    @property
    def folder(self) -> Path:
        return run_folder(self.output_dir, self.run_id)

    def planned(self) -> list[tuple[Strategy, str]]:
        """The strategies, each with the JSON text that is part of its batches' cache keys.

        Runs of older versions did not record strategies; they use those that their settings name now.
        Raises `UsageError` if another version wrote strategies that this one cannot read.
        """
        if not self.strategies:
            named = effective_strategies(self.settings)
            return [(strategy, strategy.model_dump_json()) for strategy in named]
        try:
            return [(Strategy.model_validate(values), json.dumps(values)) for values in self.strategies]
        except ValidationError as error:
            raise _of_another_version(self.folder / "run.json", error) from None


def hidden_folder(output_dir: Path | str) -> Path:
    """The folder for everything except programs, so that consumers can glob `*.py` in output_dir."""
    return Path(output_dir) / ".synth"


def run_folder(output_dir: Path | str, run_id: str) -> Path:
    return hidden_folder(output_dir) / "runs" / run_id


def plan_run(settings: Settings, *, flow_run_id: str = "", now: datetime | None = None) -> Run:
    """Plan a new run. Its record is not written yet.

    Run ids sort by time (UTC), for example `20261125-091157-3fa9c1`.
    Raises `UsageError` if output_dir is a file or cannot be written to.
    """
    settings = settings.resolved()
    check_writable(Path(settings.output_dir))
    started = now or datetime.now(UTC)
    strategies = tuple(_to_record(strategy) for strategy in effective_strategies(settings))
    texts = {name: own_text(name) for name in {strategy["prompt"] for strategy in strategies}}
    return Run(
        run_id=f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        settings=settings,
        strategies=strategies,
        prompts={name: text for name, text in texts.items() if text is not None},
        versions=_versions(),
        flow_run_id=flow_run_id,
        started=started,
    )


def continue_run(run: Run, *, flow_run_id: str = "", takeovers: int = 0) -> Run:
    """Mark the run as running again, with the versions installed now. The caller must hold its lock."""
    for name in ("ledger", "settled"):  # only the run itself writes to these folders
        remove_leftovers(run.folder / name)
    changes = {
        "state": RunState.RUNNING,
        "ended": run.ended if run.state is RunState.COMPLETED else None,
        "versions": _versions(),
        "flow_run_id": flow_run_id,
        "takeovers": takeovers,
    }
    return save_run(run.model_copy(update=changes))


def refuse_pruned(run: Run) -> None:
    """Raise `UsageError` for a completed run whose shards were deleted: a resume would repeat its work."""
    if run.pruned:
        what = f"run {run.run_id} is complete and its shards were deleted: there is nothing to resume"
        raise UsageError(f"{what}; `synth report` shows it")


def finish_run(run: Run, state: RunState) -> Run:
    """Record how the run ended. A run that had completed before keeps its earlier end."""
    return save_run(run.model_copy(update={"state": state, "ended": run.ended or datetime.now(UTC)}))


def load_run(output_dir: Path | str, run_id: str) -> Run:
    """The record of one run. Its output_dir is set to the given folder, which may have been moved.

    Raises `UsageError` for an unknown run id (the message names existing runs), or if another version wrote
    a record that this one cannot read.
    """
    path = run_folder(output_dir, run_id) / "run.json"
    try:
        run = Run.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        known = ", ".join(run_ids(output_dir)[-3:]) or "none"
        raise UsageError(f"no run {run_id!r} in {output_dir}; the newest runs: {known}") from None
    except ValidationError as error:
        raise _of_another_version(path, error) from None
    found = str(Path(output_dir).absolute())
    return run.model_copy(update={"settings": run.settings.model_copy(update={"output_dir": found})})


def run_ids(output_dir: Path | str) -> list[str]:
    """Ids of all runs of a folder, oldest first."""
    return sorted(path.parent.name for path in hidden_folder(output_dir).glob("runs/*/run.json"))


def latest_run(output_dir: Path | str) -> Run:
    """The newest run of a folder. Raises `UsageError` if it has none."""
    ids = run_ids(output_dir)
    if not ids:
        raise UsageError(
            f"{output_dir} contains no run; `synth generate --output-dir {output_dir}` starts one"
        )
    return load_run(output_dir, ids[-1])


def latest_unfinished_run(output_dir: Path | str) -> Run | None:
    """The newest run that did not complete (it may have been killed), or None.

    Runs that another version wrote and this one cannot read are skipped. Name them by id to get the error.
    """
    for run_id in reversed(run_ids(output_dir)):
        with contextlib.suppress(UsageError):
            run = load_run(output_dir, run_id)
            if run.state is not RunState.COMPLETED:
                return run
    return None


def save_run(run: Run) -> Run:
    """Write the record. Raises `EnvironmentFault` if it cannot be written."""
    write_atomic(run.folder / "run.json", run.model_dump_json(indent=2).encode())
    return run


def check_writable(output_dir: Path) -> None:
    """Create the folder. Raises `UsageError` if it is a file or cannot be written to."""
    try:
        hidden_folder(output_dir).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"output_dir {output_dir} is not a folder; name another with --output-dir") from None
    except OSError as error:
        raise UsageError(f"output_dir {output_dir} cannot be created: {error.strerror}") from None
    if not os.access(output_dir, os.W_OK | os.X_OK):
        raise UsageError(f"output_dir {output_dir} cannot be written to; name another with --output-dir")


def room(folder: Path) -> tuple[Path, float]:
    """The folder or its nearest existing parent, and the free space there in MiB."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    return existing, shutil.disk_usage(existing).free / 2**20


def _to_record(strategy: Strategy) -> dict[str, Any]:
    """All values of a strategy. Paths are absolute, so that a resume may start in any folder."""
    return strategy.model_copy(update={"prompt": whole_name(strategy.prompt)}).model_dump(mode="json")


def _of_another_version(path: Path, error: ValidationError) -> UsageError:
    return UsageError(f"{path} was not written by this version of synth: {error.errors()[0]['msg']}")


def _versions() -> dict[str, str]:
    """Versions of Python and of packages that influence results, read without importing them."""
    versions = {"synth": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
