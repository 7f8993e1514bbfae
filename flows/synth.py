"""The flow `synth`: from settings to accepted programs and their ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace

from prefect import flow, get_run_logger
from prefect.context import TagsContext
from prefect.task_runners import ThreadPoolTaskRunner

from flows.pipeline import artifacts
from flows.pipeline.batches import BatchPipeline, FinishedBatch
from flows.pipeline.gpu_pool import GpuPool
from flows.pipeline.plan import JOBS_AT_ONCE, Plan, batch_size, plan_new, plan_of
from flows.pipeline.progress import Progress, ProgressTracker, RunSummary
from flows.pipeline.recovery import flow_run_id, record_outcome, resume_interrupted_runs, take_over
from flows.pipeline.rounds import Round, run_rounds
from flows.pipeline.stages import OpenStages, open_stages
from flows.prefect_server.dead_runs import mark_dead_runs
from flows.prefect_server.locks import lock_run
from flows.prefect_server.secret_block import load_key
from synth_core.providers.cost_ledger import read_totals
from synth_core.records import Manifest
from synth_core.settings import Settings
from synth_core.store import Run, RunState, begin_run, finish_run, read_settled
from synth_core.store.runs import check_writable
from tasks.cache import Batch, ShardCache
from tasks.stages import stage_tasks

# A server becomes unreliable with more task runs in one flow run, so larger runs are split into sub-flows.
_MOST_CANDIDATES_A_FLOW = 20_000
# A flow run of the pool takes up to a minute to start on a busy server, so many batches are handed over at
# once: about as many candidates as an H100 validates in three minutes (benchmarks/validate_cuda.txt). This
# many GPUs can work at the same time.
_CANDIDATES_PER_POOL_RUN = 512
_POOL_RUNS_AT_ONCE = 8
_WAVE, _WINDOW = 4, 16  # batches that enter together, and batches in flight, if all work is done here


@dataclass(frozen=True)
class Session:
    """What a caller in the same process hands to the flow beside its parameter.

    Attributes:
        plan: What to do. None: the flow makes a plan from its parameter, as a deployment's run does.
        observer: Gets the progress.
        open_stages: Opens other stages than the real ones.
        resume_interrupted: Whether to finish interrupted runs of the same folder first, as a deployment does.
        started: Gets each run as soon as the run's record names this flow run.
    """

    plan: Plan | None = None
    observer: Callable[[Progress], None] | None = None
    open_stages: OpenStages = open_stages
    resume_interrupted: bool = False
    started: Callable[[Run], None] = lambda run: None


_ALONE = Session(resume_interrupted=True)
SESSION: ContextVar[Session] = ContextVar("synth_session", default=_ALONE)


@flow(
    name="synth",
    flow_run_name="synth-{settings.strategy}-{settings.num_total_samples}",
    task_runner=ThreadPoolTaskRunner(),  # type: ignore[arg-type]  # threads only wait, and the window limits them
    persist_result=False,
)
def synth(settings: Settings) -> RunSummary:
    """Write synthetic PyTorch programs, check each one, keep the sound ones, and record why others failed.

    A deployment's run first finishes interrupted runs of the same folder.

    Args:
        settings: All options of the run. An option that is left out has the default shown. A field without
            a value takes the strategy's value.

    Returns:
        The summary of the run: attempts, accepted programs, rejections by category, cost, path of the report.
    """
    session = SESSION.get()
    if session.resume_interrupted:
        mark_dead_runs()
        resume_interrupted_runs(
            settings.output_dir, lambda run: _work_on(session, run, lambda: plan_of(run, load_key))
        )
    plan = session.plan or plan_new(settings, load_key)
    if plan.resumed:  # whoever made the plan holds the run's lock
        run = take_over(plan.run)
        return _work_on(session, run, lambda: replace(plan, run=run))
    check_writable(plan.run.output_dir)
    # Lock the run before its record exists. Another flow takes a run with a record and no lock for dead.
    with lock_run(plan.run.folder):
        run = begin_run(plan.run, flow_run_id=flow_run_id())
        return _work_on(session, run, lambda: replace(plan, run=run))


def _work_on(session: Session, run: Run, plan: Callable[[], Plan]) -> RunSummary:
    """Carry out a run whose lock the caller holds. The run's record says how it ended."""
    with record_outcome(run):
        session.started(run)
        return _carry_out(plan(), session)


def _carry_out(plan: Plan, session: Session) -> RunSummary:
    run = plan.run
    get_run_logger().info("run=%s output_dir=%s seed=%s", run.run_id, run.output_dir, run.settings.seed)
    # A task run with tags asks the server for a concurrency slot, so task runs get no deployment's tags.
    with contextlib.ExitStack() as stack:
        run_stages = stack.enter_context(session.open_stages(plan))
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

        run_rounds(run.settings, plan.strategies, run_round, run_stages.budget_spent)
        progress.show(tracker, at_once=True)
        budget_spent = run_stages.budget_spent()
        if budget_spent:
            artifacts.alarm("budget-spent", run, tracker, budget=budget_spent)
        return _summary(run, tracker, budget_spent)


def _in_flight(settings: Settings) -> tuple[int, int]:
    """How many batches enter together, and how many can be in flight at once."""
    wave, window = _WAVE, _WINDOW
    if settings.validation.pool != "local":
        wave = max(1, _CANDIDATES_PER_POOL_RUN // batch_size(settings))
        window = _POOL_RUNS_AT_ONCE * wave
    if settings.provider.batch:
        window = max(window, JOBS_AT_ONCE)
    return wave, window


def _run_round(pipeline: BatchPipeline, this: Round) -> Iterator[FinishedBatch]:
    """Carry the batches of a round, in sub-flows if one flow run would become too large."""
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

    # First, because the report says when the run ended.
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
