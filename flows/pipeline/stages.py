"""The real stages of a run and what they share: one dispatcher, one validation engine, one filter."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.pipeline.compute import as_step, open_compute
from flows.pipeline.plan import Plan
from synth_core.filtering import refuse_held
from synth_core.prompting import own_text
from synth_core.records import Candidate, Manifest, Outcome, Stage
from synth_core.sampling import sample
from synth_core.sampling.coverage import Seen
from synth_core.store import Attempts, Run, append_ledger, persist
from synth_core.strategies import Strategy
from tasks.cache import Batch
from tasks.stages import Stages, Step


@dataclass(frozen=True)
class RunStages:
    """The stages of one run.

    spend: returns the calls, tokens and cost so far. budget_spent: returns which budget is used up; empty if
    none is. texts: what else a stage's output depends on, for its cache key: the user's own prompt templates.
    """

    stages: Stages
    spend: Callable[[], Any] = lambda: None
    budget_spent: Callable[[], str] = lambda: ""
    texts: dict[Stage, str] = field(default_factory=dict)


OpenStages = Callable[[Plan], contextlib.AbstractContextManager[RunStages]]


@contextlib.contextmanager
def open_stages(plan: Plan) -> Iterator[RunStages]:
    """Start what the run needs and end it in order, also when the run is interrupted."""
    from synth_core.extraction import extract_programs
    from synth_core.filtering import Filter
    from synth_core.prompting import render_prompts
    from synth_core.providers.dispatch import Dispatcher

    run, settings = plan.run, plan.settings
    with contextlib.ExitStack() as stack:
        dispatcher = Dispatcher(settings, key=plan.key, run_dir=run.folder)
        stack.callback(dispatcher.close)
        filter_ = Filter(run.output_dir, run.run_id, settings.skip_filters)
        steps: dict[Stage, Step] = {
            Stage.PROMPT: as_step(functools.partial(render_prompts, texts=run.prompts)),
            Stage.LLM: lambda candidates, _: drop_unasked(dispatcher.complete(candidates)),
            Stage.EXTRACT: as_step(extract_programs),
            **stack.enter_context(open_compute(settings, dispatcher.admit)),
            Stage.FILTER: as_step(filter_.apply),
            Stage.PERSIST: functools.partial(persist_batch, run),
        }
        yield RunStages(
            Stages(functools.partial(sample_batch, run, seen=_watch(run)), steps),
            dispatcher.snapshot,
            lambda: dispatcher.budget_spent,
            _templates(plan),
        )


def drop_unasked(completed: Sequence[Candidate]) -> list[Candidate]:
    """Drop the candidates that the budget did not cover. They have not failed: a resumed run asks them."""
    return [c for c in completed if not c.completion or c.completion.outcome is not Outcome.OVER_BUDGET]


def _templates(plan: Plan) -> dict[Stage, str]:
    named = sorted({strategy.prompt for strategy, _ in plan.strategies})
    texts = (plan.run.prompts.get(name) or own_text(name) for name in named)
    return {Stage.PROMPT: "\0".join(filter(None, texts))}


def sample_batch(
    run: Run, batch: Batch, earlier: Sequence[Candidate], seen: Callable[[], Seen] = Seen
) -> list[Candidate]:
    """Return the candidates of a batch: first attempts, or retries of those that failed in `earlier`.

    seen: returns what the folder holds by now. Only the sampler `coverage` needs it.
    """
    settings = run.settings
    if batch.sources:
        attempts = (sample.again(candidate, settings) for candidate in earlier)
        return [candidate for candidate in attempts if candidate is not None]
    strategy = Strategy.model_validate_json(batch.parameters)
    known = seen() if strategy.sampler == "coverage" else None
    sampled = sample.sample(settings, strategy, range(batch.start, batch.stop), known)
    return refuse_held(sampled, run.output_dir, run.run_id, settings.skip_filters)


def _watch(run: Run) -> Callable[[], Seen]:
    """Return a function that reads the folder's ledgers: all rows at the first call, then only new ones."""
    attempts, seen, lock = Attempts(run.output_dir), Seen(), threading.Lock()

    def follow() -> Seen:
        with lock:
            for operators, accepted in attempts.fresh():
                seen.add(operators, accepted=accepted)
        return seen

    return follow


def persist_batch(run: Run, candidates: Sequence[Candidate], manifest: Manifest) -> list[Candidate]:
    """Write the programs, then the ledger, so that a program is on disk before the ledger names it."""
    kept = persist(candidates, run)
    append_ledger(run, kept, round=manifest.round, batch=manifest.batch)
    return kept
