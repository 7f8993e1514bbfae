"""Runs whose process is gone and that could not say so: the server's history shows them as Crashed.

The automation of automations.py marks flow runs as soon as their heartbeats stop. It depends on events, and
Prefect's server does not keep them all: it loses those in its memory when it dies, it holds back for 15
minutes an event that follows a lost one, and at its start it drops what it expected while it was down. So
each start of a run also looks at states and heartbeats, which the database keeps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events.filters import (
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventResourceFilter,
)
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

# Each with a parameter that tells it from another of that name: a team's server has other people's runs too.
FLOWS = {"synth": "settings", "synth-part": "first_batch", "validate": "shards", "report": "output_dir"}
# Three of Prefect's heartbeats, which come every 180 s unless a process is told otherwise. With less, a run
# started by hand against a team's server, or by a worker of another set-up, would be taken for dead.
SILENCE = timedelta(minutes=9)
_AT_WORK = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
FLOW_RUNS_AT_WORK = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_AT_WORK)))
TASK_RUNS_AT_WORK = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_AT_WORK)))
_GONE = "Its process is gone."
_PAGE, _MOST_PAGES = 200, 50  # rows; the server gives no more at once. A look must end, whatever it does.


def mark_dead_runs(silence: timedelta = SILENCE) -> None:
    """Mark the flow runs of Synth that gave no sign for so long, and the task runs that ended ones left open.

    A state or heartbeat from further ahead than that is no sign either: a clock was set back since. What the
    server refuses or cannot do now is left to the next look.
    """
    now = datetime.now(UTC)
    # Nor what ended just now: it may have sent word that the server has yet to take in.
    ends = FlowRunFilterEndTime(before_=now - silence), FlowRunFilterEndTime(after_=now + silence)  # type: ignore[arg-type]
    with contextlib.suppress(HTTPError, ObjectNotFound, ValueError), get_client(sync_client=True) as client:
        unchanged = [
            run for run in _at_work(client) if run.state and abs(now - run.state.timestamp) >= silence
        ]
        alive = _with_heartbeat(client, unchanged, now - silence, now + silence)
        _mark_runs_crashed(client, [run for run in unchanged if run.id not in alive], _GONE)
        for end in ends:
            _mark_task_runs_crashed(client, FlowRunFilter(end_time=end))


def mark_crashed(flow_run_id: str, reason: str) -> None:
    """Mark it and its sub-flow runs, unless they have ended or are of another server's history."""
    with contextlib.suppress(ObjectNotFound, ValueError), get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run_id))
        parent = FlowRunFilterParentFlowRunId(any_=[run.id])
        parts = client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
        _mark_runs_crashed(
            client, [each for each in (*parts, run) if each.state and not each.state.is_final()], reason
        )


def _at_work(client: SyncPrefectClient) -> list[FlowRun]:
    """Synth's flow runs without an end; other people may have flows of the same names."""
    return [
        run
        for name, parameter in FLOWS.items()
        for run in client.read_flow_runs(flow_filter=_filter(name), flow_run_filter=FLOW_RUNS_AT_WORK)
        if parameter in run.parameters
    ]


def _filter(*names: str) -> FlowFilter:
    return FlowFilter(name=FlowFilterName(any_=list(names)))


def _with_heartbeat(
    client: SyncPrefectClient, runs: Sequence[FlowRun], since: datetime, until: datetime
) -> set[UUID]:
    """Those of the flow runs that sent a heartbeat in that time."""
    names = {f"prefect.flow-run.{run.id}": run.id for run in runs}
    alive = set()
    for name, run_id in names.items() if since < until else ():
        beats = client.read_events(
            EventFilter(
                occurred=EventOccurredFilter(since=since, until=until),  # type: ignore[arg-type]
                event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
                resource=EventResourceFilter(id=[name]),
            ),
            limit=1,
        )
        if beats.events:
            alive.add(run_id)
    return alive


def _mark_runs_crashed(client: SyncPrefectClient, runs: Iterable[FlowRun], reason: str) -> None:
    """The flow runs, and the task runs that their processes left unfinished."""
    for run in runs:
        now = client.read_flow_run(run.id).state
        if now and run.state and now.id == run.state.id:  # else it came to life or to its end meanwhile
            client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
            _mark_task_runs_crashed(client, FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))


def _mark_task_runs_crashed(client: SyncPrefectClient, of: FlowRunFilter) -> None:
    for _ in range(_MOST_PAGES):
        runs = client.read_task_runs(
            flow_filter=_filter(*FLOWS), flow_run_filter=of, task_run_filter=TASK_RUNS_AT_WORK, limit=_PAGE
        )
        for run in runs:
            client.set_task_run_state(run.id, Crashed(message=_GONE), force=True)
        if len(runs) < _PAGE:
            return
