"""The process that benchmarks/chaos.py disturbs: a run or its resume, told by one JSON object what to do."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from synth_core.records import Candidate, Category, Graph, Stage, Verdict
from synth_core.settings import Settings
from tasks.stages import Step

SECONDS_A_CANDIDATE = 0.1


def main() -> None:
    order = json.loads(sys.argv[1])
    if order["way"] == "deployed":
        sys.exit(0 if run_deployed(order) else 1)
    import flows.pipeline.stages
    from flows.cli.app import run

    if order["way"] != "real":
        flows.pipeline.stages.open_compute = open_simulated  # type: ignore[assignment,attr-defined]
    if order["resume"]:
        sys.exit(run(["resume", "--output-dir", order["out"], "--json"]))
    sys.exit(run(["generate", *options(settings(order)), "--json"]))


def options(values: dict[str, Any]) -> list[str]:
    """As a person would type them."""
    given = []
    for name, value in values.items():
        given += options(value) if isinstance(value, dict) else [f"--{name.replace('_', '-')}", str(value)]
    return given


def settings(order: dict[str, Any]) -> dict[str, Any]:
    return {
        "output_dir": order["out"],
        "cache_dir": order["cache"],
        "strategy": order["strategy"],
        "num_total_samples": order["candidates"],
        "num_worker": 2,
        "batch_size": 8,
        "seed": 7,
        "runner": "dask" if order["way"] == "dask" else "thread",
        "model_name": "local",
        "provider": {"base_url": order["url"], "model_id": "chaos"},
    }


def run_deployed(order: dict[str, Any]) -> bool:
    """Start the deployment as its schedule would, and see how its flow run ends."""
    from flows.prefect_server.connection import connected

    with connected({"PREFECT_LOGGING_LEVEL": "CRITICAL"}):
        from prefect.deployments import run_deployment

        parameters = {"settings": settings(order)}
        while True:
            try:
                ended = run_deployment("synth/high-yield", parameters=parameters, poll_interval=1)
            except Exception as error:  # the server is down for a moment, by intention
                print("asking again:", error, flush=True)
                time.sleep(1)
                continue
            print(ended.name, ended.state, flush=True)  # type: ignore[union-attr]
            return ended.state.is_completed()  # type: ignore[union-attr]


@contextlib.contextmanager
def open_simulated(settings: Settings, _: object = None) -> Iterator[dict[Stage, Step]]:
    """Validation that waits, here or on Dask workers."""
    if settings.runner == "thread":
        with open_on_worker(settings) as steps:
            yield steps
        return
    import chaos_run  # by this name the workers import it

    from flows.pipeline.dask_workers import spread

    stages = (Stage.VALIDATE_EAGER, Stage.VALIDATE_COMPILE)
    with spread(settings, stages, chaos_run.open_on_worker) as steps:
        yield steps


@contextlib.contextmanager
def open_on_worker(_: Settings) -> Iterator[dict[Stage, Step]]:
    yield {
        Stage.VALIDATE_EAGER: lambda candidates, _: [judge(candidate) for candidate in candidates],
        Stage.VALIDATE_COMPILE: lambda candidates, _: compile_all(candidates),
    }


def judge(candidate: Candidate) -> Candidate:
    """One program in eight is bad, by its text."""
    if not candidate.alive:
        return candidate
    assert candidate.program
    time.sleep(SECONDS_A_CANDIDATE)
    if int(candidate.program.digest[0], 16) < 2:
        return candidate.judged(Verdict.fail(Stage.VALIDATE_EAGER, Category.SHAPE_ERROR, "simulated"))
    graph = Graph(nodes=(), operators=candidate.specification.operators)
    return candidate.judged(Verdict.ok(Stage.VALIDATE_EAGER), graph=graph)


def compile_all(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c.judged(Verdict.ok(Stage.VALIDATE_COMPILE)) if c.alive else c for c in candidates]


if __name__ == "__main__":
    main()
