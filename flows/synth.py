"""The flow `synth`: settings in, accepted programs and their ledger out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from httpx import HTTPError
from prefect import flow, get_client, get_run_logger
from prefect.context import TagsContext
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Crashed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import artifacts
from flows.conveyor import Conveyor, Finished
from flows.locks import try_lock
from flows.pool import Pool
from flows.progress import Progress, RunSummary, Tally
from flows.rounds import JOBS_AT_ONCE, Round, batch_size, go_through_rounds
from flows.workshop import OpenWorkshop, open_workshop
from synth_core.errors import EnvironmentFault, SynthError, UsageError
from synth_core.records import Manifest
from synth_core.settings import Settings
from synth_core.store import (
    Run,
    RunState,
    continue_run,
    finish_run,
    load_run,
    plan_run,
    run_ids,
    save_run,
)
from synth_core.strategies import with_provider
from tasks.cache import Batch, Shelf, read_settled
from tasks.stages import stage_tasks

# More task runs than this in one flow run unsettle a server; larger runs are split into sub-flows.
_MOST_CANDIDATES_A_FLOW = 20_000
# What passes by itself, an outage or a full disk as well as an interrupt: the next scheduled run goes on with
# the run then, so many times in a row at most. A mistake or a bug comes back until a person has seen to it.
_PASSING = (KeyboardInterrupt, TerminationSignal, EnvironmentFault, OSError, HTTPError)
_MOST_TAKEOVERS = 5
# Starting a flow run of the pool takes up to a minute on a busy server, so many batches go at once: about as
# many candidates as an H100 validates in three minutes (benchmarks/validate_cuda.txt). So many GPUs can work.
_CANDIDATES_A_HAND_OFF = 512
_HAND_OFFS_AT_ONCE = 8


@dataclass(frozen=True)
class Session:
    """What a caller in the same process adds to the flow; a deployment's run has none of it.

    resume: the run to go on with. observer: told of progress. open_workshop: other stages than the real ones.
    """

    resume: Run | None = None
    observer: Callable[[Progress], None] | None = None
    open_workshop: OpenWorkshop = open_workshop


_ALONE = Session()
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
    if session.resume:
        return _go_on(session.resume, session)
    if session is _ALONE:
        _go_on_with_cut_short(settings.resolved().output_dir, session)
    run = plan_run(with_provider(settings), flow_run_id=_flow_run_id())
    with try_lock(_lock_file(run)):  # before there is a record, by which another flow could take it for dead
        return _work_on(save_run(run), session)


def _go_on(run: Run, session: Session) -> RunSummary:
    """Do what is left of a run; `UsageError` where another process works on it."""
    with try_lock(_lock_file(run)) as held:
        if not held:
            raise UsageError(f"run {run.run_id} is at work in another process; wait for it or stop it")
        return _work_on(_taken_over(run), session)


def _go_on_with_cut_short(output_dir: str, session: Session) -> None:
    """Do what is left of the folder's runs that were cut short; one that can't go on stops nothing else."""
    log = get_run_logger()
    for run_id in run_ids(output_dir):
        run = _cut_short(output_dir, run_id)
        if run is None:
            continue
        with try_lock(_lock_file(run)) as free:
            # Read again: whoever held the lock a moment ago may have finished it.
            run = _cut_short(output_dir, run_id) if free else None
            if run is None:
                log.info("run=%s is at work in another process, or has just ended", run_id)
                continue
            try:
                _work_on(_taken_over(run, run.takeovers + 1), session)
            except Exception as error:
                if _is_cancelled():
                    raise
                what = "run=%s was taken up and failed: %s"
                log.error(what, run_id, error, exc_info=not isinstance(error, SynthError))


def _cut_short(output_dir: str, run_id: str) -> Run | None:
    """The run, if it was interrupted or says it runs, which without its lock means that it was killed."""
    log = get_run_logger()
    try:
        run = load_run(output_dir, run_id)
    except UsageError as error:
        log.warning("run=%s is left as it is: %s", run_id, error)
        return None
    if run.state not in (RunState.RUNNING, RunState.INTERRUPTED):
        return None
    if run.takeovers >= _MOST_TAKEOVERS:
        what = "run=%s was taken up %d times in a row and never ended; it is left to `synth resume --run %s`"
        log.warning(what, run_id, run.takeovers, run_id)
        return None
    return run


def _taken_over(run: Run, takeovers: int = 0) -> Run:
    """The run as this flow run's; `takeovers` counts how often in a row that came by itself."""
    if run.flow_run_id != _flow_run_id():
        _mark_crashed(run.flow_run_id)
    return continue_run(run, flow_run_id=_flow_run_id(), takeovers=takeovers)


def _work_on(run: Run, session: Session) -> RunSummary:
    """Carry out a run whose lock the caller holds; its record says how it ended."""
    try:
        return _carry_out(run, session)
    except _PASSING:
        finish_run(run, RunState.FAILED if _is_cancelled() else RunState.INTERRUPTED)
        raise
    except BaseException:
        finish_run(run, RunState.FAILED)
        raise


def _flow_run_id() -> str:
    return str(flow_run.get_id() or "")


def _is_cancelled() -> bool:
    """Whether a person cancelled this flow run; then nothing goes on with it by itself.

    Where the server is out of reach nobody can have.
    """
    silent = (ObjectNotFound, ValueError, HTTPError)
    with contextlib.suppress(*silent), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run.get_id() or "")).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


def _lock_file(run: Run) -> Path:
    return run.folder / "lock"


def _mark_crashed(flow_run_id: str) -> None:
    """The flow run that this one takes over from can't be at work any more: its lock was free."""
    with contextlib.suppress(ObjectNotFound, ValueError), get_client(sync_client=True) as client:
        earlier = client.read_flow_run(UUID(flow_run_id))
        if earlier.state and not earlier.state.is_final():
            message = "Its process is gone; another flow run goes on with the work."
            client.set_flow_run_state(earlier.id, Crashed(message=message), force=True)


def _carry_out(run: Run, session: Session) -> RunSummary:
    get_run_logger().info("run=%s output_dir=%s seed=%s", run.run_id, run.output_dir, run.settings.seed)
    # A task run with tags asks the server for a concurrency slot each time; so a deployment's tags end here.
    with contextlib.ExitStack() as stack:
        workshop = stack.enter_context(session.open_workshop(run))
        stack.callback(workshop.stages.closed.set)
        stack.enter_context(TagsContext(current_tags=set()))
        tally = Tally(session.observer, workshop.spend)
        settled = read_settled(run.output_dir, run.run_id)
        shelf = Shelf(run.settings, run.run_id, workshop.texts, settled=settled)
        progress, yield_alarm = artifacts.Progress(run), artifacts.YieldAlarm(run)

        def left(batch: Batch, manifests: Sequence[Manifest]) -> None:
            shelf.settle(batch, manifests)
            progress.show(tally)

        tasks = stage_tasks(workshop.stages, shelf)
        conveyor = Conveyor(tasks, tally.add, spent=workshop.budget_spent, left=left)
        if run.settings.validation.pool != "local":
            wave = max(1, _CANDIDATES_A_HAND_OFF // batch_size(run.settings))
            hand_off = Pool(run, shelf, workshop.stages.closed).task()
            conveyor = replace(conveyor, hand_off=hand_off, wave=wave, window=_HAND_OFFS_AT_ONCE * wave)
        if run.settings.provider.batch:
            conveyor = replace(conveyor, window=max(conveyor.window, JOBS_AT_ONCE))

        def carry(this: Round) -> list[Finished]:
            tally.plan(this.candidates, round=this.number)
            finished = list(_carry_round(conveyor, this))
            yield_alarm.judge(tally)
            return finished

        go_through_rounds(run.settings, carry, workshop.budget_spent)
        progress.show(tally, at_once=True)
        budget_spent = workshop.budget_spent()
        if budget_spent:
            artifacts.alarm("budget-spent", run, tally, budget=budget_spent)
        return _summary(run, tally, budget_spent)


def _carry_round(conveyor: Conveyor, this: Round) -> Iterator[Finished]:
    """The round's batches, in sub-flows where one flow run would become too large."""
    per_batch = max(1, this.candidates // len(this.batches))
    most = max(1, _MOST_CANDIDATES_A_FLOW // per_batch)
    if len(this.batches) <= most:
        yield from conveyor.carry(this.batches)
        return
    for start in range(0, len(this.batches), most):
        if conveyor.spent():
            return
        part = this.batches[start : start + most]
        yield from _sub_flow(conveyor, part)(this.number, part[0].batch, part[-1].batch)


def _sub_flow(conveyor: Conveyor, part: Sequence[Batch]) -> Callable[[int, int, int], list[Finished]]:
    @flow(
        name="synth-part",
        flow_run_name="part-r{round}-b{first_batch:04d}",
        task_runner=ThreadPoolTaskRunner(),  # type: ignore[arg-type]
        persist_result=False,
    )
    def carry(round: int, first_batch: int, last_batch: int) -> list[Finished]:  # noqa: A002
        return list(conveyor.carry(part))

    return carry


def _summary(run: Run, tally: Tally, budget_spent: str) -> RunSummary:
    from synth_core.reporting import summarise, write_html

    # Before the report, which says when the run ended.
    finish_run(run, RunState.BUDGET_SPENT if budget_spent else RunState.COMPLETED)
    report = write_html(summarise(run.output_dir, run.run_id), run.folder / "report.html")
    artifacts.show_tables(tally)
    artifacts.show_report(report)
    spend = tally.spend()
    summary = RunSummary(
        run_id=run.run_id,
        output_dir=str(run.output_dir),
        attempted=tally.attempted,
        accepted=tally.accepted,
        rejected=tally.rejected,
        cost_usd=spend.cost_usd if spend else 0.0,
        calls=spend.calls if spend else 0,
        wall_s=round(tally.seconds, 1),
        report=str(report),
        short=bool(budget_spent) or tally.accepted < run.settings.num_accepted,
        budget_spent=budget_spent,
    )
    get_run_logger().info("run=%s accepted=%d/%d", run.run_id, summary.accepted, summary.attempted)
    if budget_spent:
        get_run_logger().warning("run=%s ended early: %s", run.run_id, budget_spent)
    return summary
