"""A run is planned once: nothing resolves its settings, reads its strategy or fetches its key again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.pipeline.plan import plan_new, plan_resume
from flows.prefect_server.connection import MUTED, connected
from flows.prefect_server.locks import lock_run
from flows.prefect_server.server import SILENT, Server
from synth_core.errors import UsageError
from synth_core.settings import BudgetSettings, Settings
from synth_core.store import Run, RunState, finish_run, plan_run, save_run

KEY = "the-blocks-key"

# Counts what one process does. Its arguments are the strategy file and a command, or `flow` and the settings
# for the flow as a deployment calls it. Reads of run.json count until the run writes it. Only validation is
# simulated.
COUNTED = """
import contextlib, json, os, sys
from collections import Counter
import flows.pipeline.stages
from prefect.blocks.system import Secret
from simulated import Bench
from synth_core.records import Stage
from synth_core.settings import Settings

seen, rewritten = Counter(), False

def counted(name, function):
    def wrapped(*args, **options):
        seen[name] += 1
        return function(*args, **options)
    return wrapped

def note(event, args):
    global rewritten
    if event == "os.rename" and str(args[1]).endswith("run.json"):
        rewritten = True
    elif event == "open" and isinstance(args[0], (str, os.PathLike)) and not args[2] & os.O_ACCMODE:
        path = os.fspath(args[0])
        seen["strategy"] += path == sys.argv[1]
        seen["record"] += str(path).endswith("run.json") and not rewritten

@contextlib.contextmanager
def open_compute(settings, admit):
    compiled = Bench._pass(Stage.VALIDATE_COMPILE)
    yield {Stage.VALIDATE_EAGER: Bench()._validate, Stage.VALIDATE_COMPILE: compiled}

flows.pipeline.stages.open_compute = open_compute
Settings.resolved = counted("settings", Settings.resolved)
Secret.load = counted("key", Secret.load)
sys.addaudithook(note)
if sys.argv[2] == "flow":
    from flows.prefect_server.connection import MUTED, connected
    from flows.prefect_server.server import SILENT
    from flows.synth import synth
    with connected({**SILENT, **MUTED}):
        synth(Settings.model_validate_json(sys.argv[3]))
else:
    from flows.cli.app import run
    run(sys.argv[2:])
print(json.dumps(seen))
"""


@pytest.fixture
def own_strategy(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text((Path(__file__).parents[2] / "deployments/strategies/high-yield.toml").read_text())
    return path


@pytest.fixture
def count(
    server: Server, own_strategy: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, int]]:
    """Runs one command, on a server whose block `held` holds the key."""
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    monkeypatch.setenv("PREFECT_HOME", str(server.home))
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join([str(Path(__file__).parents[1] / "helpers"), os.environ.get("PYTHONPATH", "")]),
    )
    with connected({**SILENT, **MUTED}):
        from prefect.blocks.system import Secret

        Secret(value=KEY).save("held", overwrite=True)  # type: ignore[arg-type]

    def run(*tokens: str) -> dict[str, int]:
        command = [sys.executable, "-c", COUNTED, str(own_strategy), *tokens]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
        assert done.stdout, done.stderr
        seen: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
        return {name: times for name, times in seen.items() if times}

    return run


@pytest.mark.slow
def test_one_run_decides_everything_once(
    count: Callable[..., dict[str, int]],
    own_strategy: Path,
    server: Server,
    tmp_path: Path,
) -> None:
    """A run that its budget ends, the same run resumed, and the flow as a deployment calls it."""
    out, cache = str(tmp_path / "out"), str(tmp_path / "cache")
    common = ["--output-dir", out, "--cache-dir", cache, "--strategy", str(own_strategy), "--seed", "1"]
    asked = ["--num-total-samples", "2", "--secret-block", "held", "--budget-calls", "1"]
    assert count("generate", *common, *asked) == {"settings": 1, "strategy": 1, "key": 1}
    assert count("resume", "--output-dir", out, "--budget-calls", "9") == {"record": 1, "key": 1}
    settings = Settings(
        output_dir=str(tmp_path / "deployed"),
        cache_dir=cache,
        strategy=str(own_strategy),
        num_total_samples=1,
        provider={"secret_block": "held"},  # type: ignore[arg-type]
    )
    assert count("flow", settings.model_dump_json()) == {"settings": 1, "strategy": 1, "key": 1}
    files = [path for folder in (tmp_path, server.home) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_a_plan_shows_no_key() -> None:
    from pydantic import SecretStr

    plan = plan_new(Settings(), lambda settings: SecretStr(KEY))
    assert plan.key
    assert plan.key.get_secret_value() == KEY
    assert "key" not in repr(plan)
    assert KEY not in plan.run.model_dump_json()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return save_run(plan_run(Settings(output_dir=str(tmp_path / "out"), seed=7)))


def test_a_resume_without_an_id_takes_the_newest_incomplete_run(run: Run) -> None:
    newer = save_run(plan_run(run.settings).model_copy(update={"run_id": f"9{run.run_id}"}))
    with plan_resume(run.output_dir) as plan:
        assert plan.run == newer
    complete = finish_run(newer, RunState.COMPLETED)
    with plan_resume(run.output_dir, budget=BudgetSettings(calls=5)) as plan:
        assert plan.run.run_id == run.run_id
        assert plan.settings.budget == BudgetSettings(calls=5)
    finish_run(run, RunState.COMPLETED)
    with plan_resume(run.output_dir) as plan:
        assert plan.run == complete


def test_a_run_at_work_is_not_resumed_by_a_second_process(run: Run) -> None:
    for run_id in ("", run.run_id):
        with (
            lock_run(run.folder),
            pytest.raises(UsageError, match=f"another process works on run {run.run_id}"),
            plan_resume(run.output_dir, run_id),
        ):
            pass


def test_a_plan_alone_leaves_nothing_behind(tmp_path: Path) -> None:
    plan_new(Settings(output_dir=str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []
