"""The stages that take CPU time: here by one engine, or spread over Dask workers with one engine each.

Imports no Prefect, so that a Dask worker needs none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from synth_core.providers.table import find_provider
from synth_core.records import Candidate, Stage
from synth_core.settings import Settings
from tasks.versions import VALIDATION

if TYPE_CHECKING:
    from tasks.stages import Step

Admit = Callable[[Sequence[Candidate]], list[Candidate]]


@contextlib.contextmanager
def open_compute(settings: Settings, admit: Admit = list) -> Iterator[dict[Stage, Step]]:
    """The validation stages and, with Dask, a provider that writes on this machine as the stage `llm`.

    Calls of an LLM never go to workers: one dispatcher makes them all, so that its limits hold.

    admit: which of the candidates that a worker is to write the run's budgets leave room for.
    """
    if settings.runner == "thread":
        with open_validation(settings) as steps:
            yield steps
        return
    from flows.pipeline.dask_workers import open_on_dask

    writes_here = find_provider(settings.model_name).writes_here
    stages = (*VALIDATION, *([Stage.LLM] if writes_here else []))
    with open_on_dask(settings, stages, open_on_worker) as steps:
        if write := steps.get(Stage.LLM):
            steps[Stage.LLM] = lambda candidates, place: write(admit(candidates), place)
        yield steps


@contextlib.contextmanager
def open_validation(settings: Settings) -> Iterator[dict[Stage, Step]]:
    """The two validation stages, by one engine of this process."""
    from synth_core.validation.engine import Engine

    with Engine(settings.validation, settings.num_worker, cache_dir=settings.cache_dir) as engine:
        yield {
            Stage.VALIDATE_EAGER: as_step(engine.validate_eager),
            Stage.VALIDATE_COMPILE: as_step(engine.validate_compile),
        }


@contextlib.contextmanager
def open_on_worker(settings: Settings) -> Iterator[dict[Stage, Step]]:
    """What a Dask worker does."""
    from synth_core.providers.dispatch import Dispatcher

    with open_validation(settings) as steps, Dispatcher(settings) as dispatcher:
        yield {**steps, Stage.LLM: as_step(dispatcher.complete)}


def as_step(function: Callable[[Sequence[Candidate]], list[Candidate]]) -> Step:
    """A stage that asks nothing of the manifest."""
    return lambda candidates, _: function(candidates)
