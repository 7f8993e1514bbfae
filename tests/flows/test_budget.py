"""A run whose budget is spent ends early, calls nobody a failure, and goes on with a larger one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from simulated import Bench, Runner

from flows.pipeline.compute import plain
from flows.pipeline.stages import Workshop, only_asked
from synth_core.prompting import render_prompts
from synth_core.providers.call import Reply, Request
from synth_core.providers.cost_ledger import read_totals
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Outcome, Stage, Usage, sha256
from synth_core.reporting import summarise
from synth_core.store import Run, RunState, latest_run, scan_ledger


async def ask(request: Request) -> Reply:
    """A provider of one's own that answers at once; told apart by what was asked."""
    usage = Usage(input_tokens=10, output_tokens=10)
    return Reply(outcome=Outcome.OK, text=sha256(f"{request.operators} {request.seed}")[:12], usage=usage)


class Paying(Bench):
    """The real prompts and the real dispatcher between simulated stages."""

    @contextlib.contextmanager
    def open(self, run: Run) -> Iterator[Workshop]:
        with Dispatcher(run.settings, run_dir=run.folder) as dispatcher, super().open(run) as workshop:
            steps = workshop.stages.steps
            steps[Stage.PROMPT] = plain(render_prompts)
            steps[Stage.LLM] = lambda candidates, _: only_asked(dispatcher.complete(candidates))
            yield replace(workshop, spend=dispatcher.snapshot, budget_spent=lambda: dispatcher.budget_spent)


def test_a_spent_budget_ends_the_run_and_a_larger_one_goes_on(
    runner: Runner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def options(cache: str) -> dict[str, Any]:
        folder = str(tmp_path_factory.mktemp(cache))
        name = f"{__name__}:ask"
        many = {"sampler": "uniform", "num_core_ops_range": (3, 5), "num_supporting_ops_range": (4, 10)}
        return {**many, "num_total_samples": 240, "batch_size": 10, "model_name": name, "cache_dir": folder}

    runner.bench = Paying()
    summary = runner(**options("cache"), budget={"calls": 25})
    run = latest_run(runner.folder)
    assert summary.budget_spent == "the budget of 25 calls is spent"
    assert summary.short
    assert (summary.calls, summary.attempted, run.state) == (25, 25, RunState.BUDGET_SPENT)
    assert summary.rejected.keys() <= {"SHAPE_ERROR"}  # which 25 were asked is left to chance
    assert summary.accepted + sum(summary.rejected.values()) == 25
    assert scan_ledger(runner.folder, run.run_id).collect().height == 25
    assert runner.bench.count(Stage.LLM) <= 20  # the window, and not the whole run

    with (run.folder / "calls.jsonl").open("a") as ledger:
        ledger.write('{"session": "a long one", "at": 5000, "written": 0}\n')
    again = runner(resume="")
    assert again.calls == 25
    assert again.wall_s > 5000  # all sessions' time together
    assert runner(resume="", budget={"calls": 40}).attempted == 40

    whole = runner(resume="", budget={"calls": 10_000})
    unlimited = Runner(tmp_path_factory.mktemp("unlimited"), Paying())
    expected = unlimited(**options("other"))
    assert expected.calls == expected.attempted  # so many operators that no two ask the same
    assert not whole.budget_spent
    assert runner.programs() == unlimited.programs()
    assert (whole.attempted, whole.accepted) == (expected.attempted, expected.accepted)
    assert read_totals(run.folder).calls == expected.calls  # nothing was paid for twice
    assert summarise(runner.folder, run.run_id).spend.calls == expected.calls  # earlier sessions' too
    assert latest_run(runner.folder).state is RunState.COMPLETED
