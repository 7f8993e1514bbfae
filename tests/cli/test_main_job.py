"""What the README promises of the command: programs, each proved, from nothing but this package."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command import SYNTH, environment, synth

from synth_core.program.naming import operators_named

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 12
GENERATE = ("generate", "--num-total-samples", str(COUNT), "--seed", "7", "--json", "--output-dir")
PATIENCE = 600.0


class Made(NamedTuple):
    home: Path
    result: dict[str, Any]

    @property
    def programs(self) -> dict[str, str]:
        return texts(self.home / "one")


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.py")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """From a home that is empty: the one test that pays for the first engine on a machine."""
    home = tmp_path_factory.mktemp("home")
    done = synth(*GENERATE, "one", cwd=home, timeout=PATIENCE, HOME=str(home))
    assert done.returncode == 0, done.stderr
    return Made(home, json.loads(done.stdout))


def test_every_attempt_is_accounted_for_in_one_object(made: Made) -> None:
    result = made.result
    assert " ".join(result) == (
        "run_id output_dir attempted accepted rejected cost_usd calls wall_s report yield"
    )
    assert result["attempted"] == result["accepted"] + sum(result["rejected"].values()) >= COUNT
    assert result["yield"] == result["accepted"] / result["attempted"] >= 0.8
    assert len(made.programs) == result["accepted"]
    assert Path(result["report"]).read_text().startswith("<!")


def test_the_same_seed_writes_the_same_bytes_elsewhere(made: Made) -> None:
    done = synth(*GENERATE, "two", cwd=made.home, timeout=PATIENCE, HOME=str(made.home))
    assert done.returncode == 0, done.stderr
    assert texts(made.home / "two") == made.programs


def test_what_was_accepted_is_accepted_again_by_whoever_asks(
    made: Made, tmp_path: Path, warm_up: Callable[[Path], Path]
) -> None:
    warm_up(tmp_path / ".cache" / "synth")
    done = synth("validate", "one", "--json", cwd=made.home, timeout=PATIENCE, HOME=str(tmp_path))
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [v["detail"] for v in verdicts if not v["accepted"]] == []
    assert done.returncode == 0
    assert {Path(v["path"]).name for v in verdicts} == set(made.programs)
    for verdict in verdicts:
        named = operators_named(Path(verdict["path"]).stem)  # cut short where the name would be too long
        assert named
        assert tuple(verdict["realised_operators"])[: len(named)] == named


def test_an_interrupted_run_says_how_to_go_on_and_that_works(made: Made) -> None:
    options = ("--num-total-samples", "8", "--batch-size", "2", "--seed", "8", "--output-dir", "cut")
    process = subprocess.Popen(
        [*SYNTH, "generate", *options],
        cwd=made.home,
        env=environment(HOME=str(made.home)),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE
    while not texts(made.home / "cut") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    before = texts(made.home / "cut")
    assert before

    command = shlex.split(said.splitlines()[-1])
    assert command[:2] == ["synth", "resume"]
    done = synth(*command[1:], "--json", cwd=made.home, timeout=PATIENCE, HOME=str(made.home))
    assert done.returncode == 0, done.stderr
    after = texts(made.home / "cut")
    assert before.items() <= after.items()
    assert len(after) == json.loads(done.stdout)["accepted"]
