"""The record of a run: what was asked, by which versions, when, and how it ended.

It lies in `output_dir/.synth/runs/<run_id>/run.json`, next to the run's ledger, so that a folder of
programs always says where they came from and `synth resume` needs nothing but the folder.
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
    RUNNING = "running"  # or killed: nothing can write a last word then
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    BUDGET_SPENT = "ended by its budget"


class Run(Record):
    """One run; times are UTC, `settings` are resolved (seed drawn, paths absolute).

    strategies: as the run was planned, so that neither an edited file nor a new default changes them.
    prompts: what prompt files of the user's own held then, by path.
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
    takeovers: int = Field(default=0, description="How often in a row a scheduled run went on with it")
    pruned: bool = Field(default=False, description="Its shards were dropped, so nothing can go on with it")

    @property
    def output_dir(self) -> Path:
        return Path(self.settings.output_dir)

    @property
    def folder(self) -> Path:
        return run_folder(self.output_dir, self.run_id)

    def planned(self) -> list[tuple[Strategy, str]]:
        """The strategies, each with the text by which its batches are recognised.

        A run older than this record has those that its settings name now. Raises `UsageError` where another
        version wrote what this one can't read.
        """
        if not self.strategies:
            named = effective_strategies(self.settings)
            return [(strategy, strategy.model_dump_json()) for strategy in named]
        try:
            return [(Strategy.model_validate(values), json.dumps(values)) for values in self.strategies]
        except ValidationError as error:
            raise _of_another_version(self.folder / "run.json", error) from None


def hidden_folder(output_dir: os.PathLike[str] | str) -> Path:
    """Where all that is not a program lies: a consumer globs `*.py` in output_dir itself."""
    return Path(output_dir) / ".synth"


def run_folder(output_dir: Path | str, run_id: str) -> Path:
    return hidden_folder(output_dir) / "runs" / run_id


def plan_run(settings: Settings, *, flow_run_id: str = "", now: datetime | None = None) -> Run:
    """A new run of which nothing is written; `UsageError` where output_dir is a file or cannot be written.

    Run ids sort by time: `20261125-091157-3fa9c1`, UTC.
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
    """The same run, running again by what is installed now; the caller holds its lock."""
    for name in ("ledger", "settled"):  # where the run alone writes
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
    """`UsageError` for a completed run whose shards are gone: a resume would do all of it anew."""
    if run.pruned:
        what = f"run {run.run_id} is complete and its shards were dropped: there is nothing to go on with"
        raise UsageError(f"{what}; `synth report` shows it")


def finish_run(run: Run, state: RunState) -> Run:
    """Write the run's last word; one that had completed before ended then."""
    return save_run(run.model_copy(update={"state": state, "ended": run.ended or datetime.now(UTC)}))


def load_run(output_dir: Path | str, run_id: str) -> Run:
    """The record of one run; `UsageError` names the runs that are there if this one is not.

    A folder may have been moved since: the run's output_dir is where it was found.
    """
    path = run_folder(output_dir, run_id) / "run.json"
    try:
        run = Run.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        known = ", ".join(run_ids(output_dir)[-3:]) or "none"
        raise UsageError(f"no run {run_id!r} in {output_dir}; the newest there: {known}") from None
    except ValidationError as error:
        raise _of_another_version(path, error) from None
    found = str(Path(output_dir).absolute())
    return run.model_copy(update={"settings": run.settings.model_copy(update={"output_dir": found})})


def run_ids(output_dir: os.PathLike[str] | str) -> list[str]:
    """Ids of all runs of a folder, oldest first."""
    return sorted(path.parent.name for path in hidden_folder(output_dir).glob("runs/*/run.json"))


def latest_run(output_dir: Path | str) -> Run:
    """The newest run of a folder; `UsageError` where it has none."""
    ids = run_ids(output_dir)
    if not ids:
        raise UsageError(f"{output_dir} holds no run; `synth generate --output-dir {output_dir}` makes one")
    return load_run(output_dir, ids[-1])


def latest_unfinished_run(output_dir: Path | str) -> Run | None:
    """The newest run that did not complete, killed ones included; None where all did.

    One that can't be read (another version wrote it) is passed over: it is still there to be asked for by id.
    """
    for run_id in reversed(run_ids(output_dir)):
        with contextlib.suppress(UsageError):
            run = load_run(output_dir, run_id)
            if run.state is not RunState.COMPLETED:
                return run
    return None


def save_run(run: Run) -> Run:
    """Write the record; `EnvironmentFault` where the disk does not take it."""
    write_atomic(run.folder / "run.json", run.model_dump_json(indent=2).encode())
    return run


def check_writable(output_dir: Path) -> None:
    """Make the folder; `UsageError` where it is a file or can't be written."""
    try:
        hidden_folder(output_dir).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"output_dir {output_dir} is not a folder; name another with --output-dir") from None
    except OSError as error:
        raise UsageError(f"output_dir {output_dir} cannot be made: {error.strerror}") from None
    if not os.access(output_dir, os.W_OK | os.X_OK):
        raise UsageError(f"output_dir {output_dir} cannot be written to; name another with --output-dir")


def room(folder: Path) -> tuple[Path, float]:
    """The folder or the nearest parent that exists, and how many MiB are free there."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    return existing, shutil.disk_usage(existing).free / 2**20


def _to_record(strategy: Strategy) -> dict[str, Any]:
    """Every value, for a resume from whatever folder."""
    return strategy.model_copy(update={"prompt": whole_name(strategy.prompt)}).model_dump(mode="json")


def _of_another_version(path: Path, error: ValidationError) -> UsageError:
    return UsageError(f"{path} was not written by this version of synth: {error.errors()[0]['msg']}")


def _versions() -> dict[str, str]:
    """Versions of what a program's fate depends on, read without importing any of it."""
    versions = {"synth": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
