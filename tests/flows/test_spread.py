"""Dask workers give what one process gives, also when some of them die."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.spread import spread
from synth_core.errors import EnvironmentFault
from synth_core.records import Candidate, Manifest, Specification, Stage, Verdict
from synth_core.settings import Settings
from tasks.stages import Step

STAGE = Stage.VALIDATE_EAGER
PLACE = Manifest(path="", digest="", stage=STAGE, total=0, alive=0)


@contextlib.contextmanager
def open_slow(settings: Settings) -> Iterator[dict[Stage, Step]]:
    """On the worker: a tenth of a second a candidate; leaves the worker's pid in output_dir."""
    Path(settings.output_dir, f"{os.getpid()}.pid").touch()

    def judge(candidate: Candidate) -> Candidate:
        time.sleep(0.1)
        return candidate.judged(Verdict.ok(STAGE, detail=f"judged {candidate.specification.seed}"))

    yield {STAGE: lambda candidates, _: [judge(candidate) for candidate in candidates]}


def candidates(count: int) -> list[Candidate]:
    made = [
        Candidate(
            index=i,
            specification=Specification(
                operators=("ReLU",), strategy="a", seed=i, provider="b", prompt="c", temperature=0
            ),
        )
        for i in range(count)
    ]
    made[3] = made[3].judged(Verdict.fail(Stage.EXTRACT, "NO_CODE", "dead before"))  # type: ignore[arg-type]
    return made


@pytest.mark.slow
def test_workers_may_die_under_the_work(tmp_path: Path) -> None:
    settings = Settings(output_dir=str(tmp_path), num_worker=3, runner="dask")
    given = candidates(200)
    with open_slow(settings) as local:
        expected = [c if not c.alive else local[STAGE]([c], PLACE)[0] for c in given]
    next(tmp_path.glob("*.pid")).unlink()  # this process's own

    def kill_two() -> None:
        while len(pids := list(tmp_path.glob("*.pid"))) < 3:
            time.sleep(0.1)
        for path in pids[:2]:
            os.kill(int(path.stem), signal.SIGKILL)

    killer = threading.Thread(target=kill_two)
    killer.start()
    with spread(settings, [STAGE], open_slow) as remote:
        assert remote[STAGE](given, PLACE) == expected
    killer.join()
    assert len(list(tmp_path.glob("*.pid"))) > 3  # others took their place


def test_says_so_where_no_scheduler_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.spread._CONNECT", "1s")
    settings = Settings(output_dir=str(tmp_path), runner="dask", dask_address="tcp://127.0.0.1:9")
    with pytest.raises(EnvironmentFault, match="no Dask scheduler at"), spread(settings, [STAGE], open_slow):
        pass
