"""Every script of examples/, started as its first line says, in a temporary folder."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import synth_core

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SCRIPTS = {path.stem: path for path in (ROOT / "examples").glob("*.py")}
STARTED_BY = {
    "python": [sys.executable],
    "synth": [sys.executable, "-c", "from flows.cli.app import main; main()"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, warm_up: Callable[[Path], Path]) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    warm_up(folder / "cache" / "synth")
    for path in SCRIPTS.values():
        shutil.copy2(path, folder)
    return folder


@pytest.fixture(scope="module")
def folder_of_a_run(folder: Path) -> Path:
    """The folder once the first example has made a run in it."""
    start("own_provider", folder)
    return folder


def start(name: str, folder: Path) -> str:
    """Start an example by its own instructions and return what it printed."""
    lines = (ast.get_docstring(ast.parse(SCRIPTS[name].read_text())) or "").splitlines()
    found = re.fullmatch(r"[^.]+\. Usage: (.+)", lines[0])
    assert found, lines[0]
    program, *arguments = shlex.split(found[1])
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SYNTH_", "PREFECT_"))}
    done = subprocess.run(
        [*STARTED_BY[program], *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_are_started_here_and_are_short() -> None:
    assert set(SCRIPTS) == {"own_provider", "validate_loop", "own_filter", "ledger_to_plot"}
    assert max(len(path.read_text().splitlines()) for path in SCRIPTS.values()) < 60


def test_own_provider(folder_of_a_run: Path) -> None:
    ledger = synth_core.read_ledger(folder_of_a_run / "synth-output")
    assert ledger["accepted"].any()
    assert set(ledger["serving_model"]) == {"my-model-1"}


def test_own_filter(folder_of_a_run: Path) -> None:
    said = start("own_filter", folder_of_a_run).splitlines()
    selected = {path.stem for path in (folder_of_a_run / "selected").iterdir()}
    assert {line.split()[1] for line in said if line.startswith("selected")} == selected
    accepted = synth_core.read_ledger(folder_of_a_run / "synth-output")["accepted"].sum()
    assert len(said) == accepted >= len(selected)


def test_ledger_to_plot(folder_of_a_run: Path) -> None:
    start("ledger_to_plot", folder_of_a_run)
    drawing = (folder_of_a_run / "yield.svg").read_text()
    assert drawing.startswith("<svg")
    assert "accepted" in drawing


def test_validate_loop(folder: Path) -> None:
    said = start("validate_loop", folder)
    assert len(re.findall("^kept ", said, re.MULTILINE)) == 3
    assert "CONTRACT_VIOLATION" in said
    assert len(list((folder / "sound").rglob("*.py"))) == 3
