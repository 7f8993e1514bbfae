"""The stages as plain functions, without Prefect: for one candidate (`debug`) or a few (`preview`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from flows.prefect_server.secret_block import fetch_key
from synth_core.extraction import extract_programs
from synth_core.prompting import render_prompts
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Candidate
from synth_core.sampling.sample import plan, sample
from synth_core.settings import Settings
from synth_core.strategies import effective_strategies
from synth_core.validation.engine import Engine

Step = Callable[[list[Candidate]], list[Candidate]]


def first_candidates(settings: Settings, count: int) -> list[Candidate]:
    """The first attempts that a run of `count` candidates with these settings would make."""
    chunks = plan(effective_strategies(settings), 0, count)
    return [candidate for strategy, indices in chunks for candidate in sample(settings, strategy, indices)]


@contextlib.contextmanager
def steps(settings: Settings) -> Iterator[list[Step]]:
    """What happens to candidates after sampling and before the filter, in order.

    Never in a provider's batch mode: whoever looks at a few candidates doesn't wait a day for them.
    """
    direct = settings.provider.model_copy(update={"batch": False})
    settings = settings.model_copy(update={"provider": direct})
    with (
        Dispatcher(settings, key=fetch_key(settings)) as dispatcher,
        Engine(settings.validation, settings.num_worker, cache_dir=settings.cache_dir) as engine,
    ):
        engine.probe()  # starts it here, so that no candidate's time holds the start
        yield [
            render_prompts,
            dispatcher.complete,
            extract_programs,
            engine.validate_eager,
            engine.validate_compile,
        ]
