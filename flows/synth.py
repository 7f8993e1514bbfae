"""The flow `synth`: settings in, accepted programs and their ledger out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from prefect import flow, get_run_logger
from prefect.context import TagsContext
from prefect.task_runners import ThreadPoolTaskRunner

from flows.pipeline import artifacts
from flows.pipeline.batches import BatchPipeline, FinishedBatch
from flows.pipeline.gpu_pool import GpuPool
from flows.pipeline.progress import Progress, ProgressTracker, RunSummary
from flows.pipeline.recovery import flow_run_id, record_outcome, resume_interrupted_runs, resume_run
from flows.pipeline.rounds import JOBS_AT_ONCE, Round, batch_size, run_rounds, with_batch_size
from flows.pipeline.stages import OpenStages, open_stages
from flows.prefect_server.dead_runs import mark_dead_runs
from flows.prefect_server.locks import lock_run
from synth_core.providers.cost_ledger import read_totals
from synth_core.records import Manifest
from synth_core.settings import Settings
from synth_core.store import Run, RunState, finish_run, plan_run, read_settled, save_run
from synth_core.strategies import with_provider
from tasks.cache import Batch, ShardCache
from tasks.stages import stage_tasks

# More task runs than this in one flow run unsettle a server; larger runs are split into sub-flows.
_MOST_CANDIDATES_A_FLOW = 20_000
# Starting a flow run of the pool takes up to a minute on a busy server, so many batches go at once: about as
# many candidates as an H100 validates in three minutes (benchmarks/validate_cuda.txt). So many GPUs can work.
_CANDIDATES_PER_POOL_RUN = 512
_POOL_RUNS_AT_ONCE = 8
_WAVE, _WINDOW = 4, 16  # batches that enter together, and in flight, where all is done here


@dataclass(frozen=True)
class Session:
    """What a caller in the same process adds to the flow; a deployment's run has none of it.

    resume: the run to go on with. observer: told of progress. open_stages: other stages than the real ones.
    resume_interrupted: first go on with what was cut short in the same folder, as a deployment's run does.
    started: told of each run as soon as its record names this flow run.
    """

    resume: Run | None = None
    observer: Callable[[Progress], None] | None = None
    open_stages: OpenStages = open_stages
    resume_interrupted: bool = False
    started: Callable[[Run], None] = lambda run: None


_ALONE = Session(resume_interrupted=True)
SESSION: ContextVar[Session] = ContextVar("synth_session", default=_ALONE)


@flow(
    name="synth",
    flow_run_name="synth-{settings.strategy}-{settings.num_total_samples}",
    task_runner=ThreadPoolTaskRunner(),  # type: ignore[arg-type]  # threads wait; the window bounds them
    persist_result=False,
)
def synth(settings: Settings) -> RunSummary:
    """Write synthetic PyTorch programs, prove each one sound, keep the good, say why the others fell.

    A run by a deployment first goes on with what was cut short in the same folder.

    Args:
        settings: All options of the run. What is left out has the default shown; a field without a value
            takes the strategy's.

    Returns:
        What the run came to: attempts, accepted programs, rejections by category, cost, the report's path.
    """
    session = SESSION.get()
    work_on = functools.partial(_work_on, session)
    if session.resume:
        return resume_run(session.resume, work_on)
    if session.resume_interrupted:
        mark_dead_runs()
        resume_interrupted_runs(settings.resolved().output_dir, work_on)
    run = plan_run(with_batch_size(with_provider(settings)), flow_run_id=flow_run_id())
    with lock_run(run.folder):  # before there is a record, by which another flow could take it for dead
        return work_on(save_run(run))


def _work_on(session: Session, run: Run) -> RunSummary:
    """Carry out a run whose lock the caller holds; its record says how it ended."""
    with record_outcome(run):
        session.started(run)
        return _carry_out(run, session)


def _carry_out(run: Run, session: Session) -> RunSummary:
    get_run_logger().info("run=%s output_dir=%s seed=%s", run.run_id, run.output_dir, run.settings.seed)
    # A task run with tags asks the server for a concurrency slot each time; so a deployment's tags end here.
    with contextlib.ExitStack() as stack:
        run_stages = stack.enter_context(session.open_stages(run))
        stack.callback(run_stages.stages.closed.set)
        stack.enter_context(TagsContext(current_tags=set()))
        tracker = ProgressTracker(
            session.observer, run_stages.spend, earlier_s=read_totals(run.folder).active_s
        )
        settled = read_settled(run.output_dir, run.run_id)
        cache = ShardCache(run.settings, run.run_id, run_stages.texts, settled=settled)
        progress, yield_alarm = artifacts.ProgressBar(run), artifacts.YieldAlarm(run)

        def on_finished(batch: Batch, manifests: Sequence[Manifest]) -> None:
            cache.settle(batch, manifests)
            progress.show(tracker)

        tasks = stage_tasks(run_stages.stages, cache)
        wave, window = _in_flight(run.settings)
        pool = None
        if run.settings.validation.pool != "local":
            pool = GpuPool(run, cache, run_stages.stages.closed).task()
        pipeline = BatchPipeline(
            tasks,
            tracker.add,
            window=window,
            wave=wave,
            pool_task=pool,
            is_spent=run_stages.budget_spent,
            on_finished=on_finished,
        )

        def run_round(this: Round) -> list[FinishedBatch]:
            tracker.plan(this.candidates, round=this.number)
            finished = list(_run_round(pipeline, this))
            yield_alarm.judge(tracker)
            return finished

        run_rounds(run, run_round, run_stages.budget_spent)
        progress.show(tracker, at_once=True)
        budget_spent = run_stages.budget_spent()
        if budget_spent:
            artifacts.alarm("budget-spent", run, tracker, budget=budget_spent)
        return _summary(run, tracker, budget_spent)


def _in_flight(settings: Settings) -> tuple[int, int]:
    """How many batches enter together, and how many may be under way at once."""
    wave, window = _WAVE, _WINDOW
    if settings.validation.pool != "local":
        wave = max(1, _CANDIDATES_PER_POOL_RUN // batch_size(settings))
        window = _POOL_RUNS_AT_ONCE * wave
    if settings.provider.batch:
        window = max(window, JOBS_AT_ONCE)
    return wave, window


def _run_round(pipeline: BatchPipeline, this: Round) -> Iterator[FinishedBatch]:
    """The round's batches, in sub-flows where one flow run would become too large."""
    per_batch = max(1, this.candidates // len(this.batches))
    most = max(1, _MOST_CANDIDATES_A_FLOW // per_batch)
    if len(this.batches) <= most:
        yield from pipeline.run(this.batches)
        return
    for start in range(0, len(this.batches), most):
        if pipeline.is_spent():
            return
        part = this.batches[start : start + most]
        yield from _sub_flow(pipeline, part)(this.number, part[0].batch, part[-1].batch)


def _sub_flow(
    pipeline: BatchPipeline, part: Sequence[Batch]
) -> Callable[[int, int, int], list[FinishedBatch]]:
    @flow(
        name="synth-part",
        flow_run_name="part-r{round}-b{first_batch:04d}",
        task_runner=ThreadPoolTaskRunner(),  # type: ignore[arg-type]
        persist_result=False,
    )
    def run_part(round: int, first_batch: int, last_batch: int) -> list[FinishedBatch]:  # noqa: A002
        return list(pipeline.run(part))

    return run_part


def _summary(run: Run, tracker: ProgressTracker, budget_spent: str) -> RunSummary:
    from synth_core.reporting import write_report

    # Before the report, which says when the run ended.
    finish_run(run, RunState.BUDGET_SPENT if budget_spent else RunState.COMPLETED)
    _, report = write_report(run.output_dir, run.run_id)
    artifacts.show_tables(tracker)
    artifacts.show_report(report)
    spend = tracker.spend()
    summary = RunSummary(
        run_id=run.run_id,
        output_dir=str(run.output_dir),
        attempted=tracker.attempted,
        accepted=tracker.accepted,
        rejected=tracker.rejected,
        cost_usd=spend.cost_usd if spend else 0.0,
        calls=spend.calls if spend else 0,
        wall_s=round(tracker.seconds, 1),
        report=str(report),
        short=bool(budget_spent) or tracker.accepted < run.settings.num_accepted,
        budget_spent=budget_spent,
    )
    get_run_logger().info("run=%s accepted=%d/%d", run.run_id, summary.accepted, summary.attempted)
    if budget_spent:
        get_run_logger().warning("run=%s ended early: %s", run.run_id, budget_spent)
    return summary
