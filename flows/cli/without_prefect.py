"""The stages as plain functions, without Prefect: for one candidate (`debug`) or a few (`preview`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from flows.pipeline.plan import Plan
from synth_core.extraction import extract_programs
from synth_core.prompting import render_prompts
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Candidate
from synth_core.sampling.sample import divide, sample
from synth_core.validation.engine import Engine

Step = Callable[[list[Candidate]], list[Candidate]]


def first_candidates(plan: Plan, count: int) -> list[Candidate]:
    """The first attempts that a run of `count` candidates by this plan would make."""
    chunks = divide([strategy for strategy, _ in plan.strategies], 0, count)
    return [
        candidate for strategy, indices in chunks for candidate in sample(plan.settings, strategy, indices)
    ]


@contextlib.contextmanager
def steps(plan: Plan) -> Iterator[list[Step]]:
    """The stages after `sample` and before `filter`, in order.

    A provider's batch mode is never used here: nobody wants to wait a day to see a few candidates.
    """
    direct = plan.settings.provider.model_copy(update={"batch": False})
    settings = plan.settings.model_copy(update={"provider": direct})
    with (
        Dispatcher(settings, key=plan.key) as dispatcher,
        Engine(settings.validation, settings.num_worker, cache_dir=settings.cache_dir) as engine,
    ):
        engine.probe()  # starts the engine now, so that the time of no candidate includes the start
        yield [
            render_prompts,
            dispatcher.complete,
            extract_programs,
            engine.validate_eager,
            engine.validate_compile,
        ]
