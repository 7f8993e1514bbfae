"""Mark runs as Crashed whose process was killed.

A killed process cannot report its own end, and a Prefect server marks no run by itself. So each run of
Synth looks for dead runs when it starts, and `synth up` looks every minute. They ask for states and
heartbeats, which the server keeps in its database. An automation would depend on events as they arrive, and
a server that dies loses those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
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

# Our flows, each with one of its parameters. On a team's server, other people may have flows of the same
# names.
FLOWS = {"synth": "settings", "synth-part": "first_batch", "validate": "shards", "report": "output_dir"}
# Three of Prefect's heartbeats, which are sent every 180 s by default. A shorter time would mark live runs of
# processes that keep the default.
SILENCE = timedelta(minutes=9)
_UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
UNFINISHED_FLOW_RUNS = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED)))
UNFINISHED_TASK_RUNS = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_UNFINISHED)))
_GONE = "Its process is gone."
_PAGE, _MAX_PAGES = 200, 50  # rows per request, which the server limits, and requests: a look must end


def mark_dead_runs(silence: timedelta = SILENCE) -> None:
    """Mark our flow runs that have been silent for so long, and unfinished task runs of flow runs that ended.

    A state or heartbeat that lies further ahead than `silence` counts as none: a clock was set back since.
    Errors of the server are ignored, because the next look tries again.
    """
    now = datetime.now(UTC)
    # A flow run that has just ended may have sent states of its task runs that the server has yet to record.
    ends = FlowRunFilterEndTime(before_=now - silence), FlowRunFilterEndTime(after_=now + silence)  # type: ignore[arg-type]
    with _client_or_next_time() as client:
        _mark_silent(client, _unfinished(client), silence)
        for end in ends:
            _mark_task_runs_crashed(client, FlowRunFilter(end_time=end))


def mark_if_dead(flow_run_id: UUID, silence: timedelta = SILENCE) -> None:
    """Like `mark_dead_runs`, for one flow run."""
    with _client_or_next_time() as client:
        run = client.read_flow_run(flow_run_id)
        if run.state and run.state.type in _UNFINISHED:
            _mark_silent(client, [run], silence)


@contextlib.contextmanager
def _client_or_next_time() -> Iterator[SyncPrefectClient]:
    with contextlib.suppress(HTTPError, ObjectNotFound, ValueError), get_client(sync_client=True) as client:
        yield client


def _mark_silent(client: SyncPrefectClient, runs: Iterable[FlowRun], silence: timedelta) -> None:
    now = datetime.now(UTC)
    unchanged = [run for run in runs if run.state and abs(now - run.state.timestamp) >= silence]
    alive = _with_heartbeat(client, unchanged, now - silence, now + silence)
    _mark_runs_crashed(client, [run for run in unchanged if run.id not in alive], _GONE)


def mark_crashed(flow_run_id: str, reason: str) -> None:
    """Mark the flow run and its sub-flow runs, unless they have ended or this server does not know them."""
    with contextlib.suppress(ObjectNotFound, ValueError), get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run_id))
        parent = FlowRunFilterParentFlowRunId(any_=[run.id])
        parts = client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
        unfinished = [each for each in (*parts, run) if each.state and not each.state.is_final()]
        _mark_runs_crashed(client, unfinished, reason)


def _unfinished(client: SyncPrefectClient) -> list[FlowRun]:
    """Return our flow runs that have not ended."""
    return [
        run
        for name, parameter in FLOWS.items()
        for run in client.read_flow_runs(flow_filter=_filter(name), flow_run_filter=UNFINISHED_FLOW_RUNS)
        if parameter in run.parameters
    ]


def _filter(*names: str) -> FlowFilter:
    return FlowFilter(name=FlowFilterName(any_=list(names)))


def _with_heartbeat(
    client: SyncPrefectClient, runs: Sequence[FlowRun], since: datetime, until: datetime
) -> set[UUID]:
    """Return the ids of the flow runs that sent a heartbeat in that time."""
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
    """Mark the flow runs, and the task runs that their processes left unfinished."""
    for run in runs:
        now = client.read_flow_run(run.id).state
        if now and run.state and now.id == run.state.id:  # else it has ended or gone on meanwhile
            client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
            _mark_task_runs_crashed(client, FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))


def _mark_task_runs_crashed(client: SyncPrefectClient, of: FlowRunFilter) -> None:
    for _ in range(_MAX_PAGES):
        runs = client.read_task_runs(
            flow_filter=_filter(*FLOWS), flow_run_filter=of, task_run_filter=UNFINISHED_TASK_RUNS, limit=_PAGE
        )
        for run in runs:
            client.set_task_run_state(run.id, Crashed(message=_GONE), force=True)
        if len(runs) < _PAGE:
            return
