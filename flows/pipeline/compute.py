"""Open the stages that need CPU time: one engine in this process, or one in each Dask worker.

This imports no Prefect, so a Dask worker does not need it.
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
    """Open the validation stages and, with Dask, the stage `llm` of a provider that writes without an LLM.

    LLM calls never go to workers. One dispatcher makes them all, so that its limits hold.

    admit: returns those candidates that the budget still covers, before workers write them.
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
    """Open the two validation stages with one engine in this process."""
    from synth_core.validation.engine import Engine

    with Engine(settings.validation, settings.num_worker, cache_dir=settings.cache_dir) as engine:
        yield {
            Stage.VALIDATE_EAGER: as_step(engine.validate_eager),
            Stage.VALIDATE_COMPILE: as_step(engine.validate_compile),
        }


@contextlib.contextmanager
def open_on_worker(settings: Settings) -> Iterator[dict[Stage, Step]]:
    """Open the stages that a Dask worker carries out."""
    from synth_core.providers.dispatch import Dispatcher

    with open_validation(settings) as steps, Dispatcher(settings) as dispatcher:
        yield {**steps, Stage.LLM: as_step(dispatcher.complete)}


def as_step(function: Callable[[Sequence[Candidate]], list[Candidate]]) -> Step:
    """Turn a function of the candidates into a step, which is also given the manifest."""
    return lambda candidates, _: function(candidates)
