"""What a run does when the pool has no worker. With one: test_up.py."""

from __future__ import annotations

import pytest
from simulated import Runner

from synth_core.errors import EnvironmentFault
from synth_core.records import Stage


def test_without_a_worker_the_work_is_done_here(runner: Runner) -> None:
    summary = runner(num_total_samples=20, validation={"pool": "gpu", "pool_wait": 0})
    assert summary.accepted > 0
    assert runner.bench.count(Stage.VALIDATE_COMPILE) > 0


def test_without_a_worker_the_run_fails_if_it_is_told_to(runner: Runner) -> None:
    options = {"pool": "gpu", "pool_wait": 0, "pool_fallback": "fail"}
    with pytest.raises(EnvironmentFault, match="prefect worker start --pool gpu"):
        runner(num_total_samples=4, validation=options)
    assert runner.bench.count(Stage.EXTRACT) == 1
    assert runner.bench.count(Stage.VALIDATE_EAGER) == 0
