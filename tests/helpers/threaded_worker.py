"""A worker of the pool `gpu` in a thread: it is online, and does with each flow run what the test says."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Completed, Running

from flows.pipeline.gpu_pool import POOL
from flows.prefect_server.connection import connected
from flows.validate import validate

Work = Callable[[SyncPrefectClient, FlowRun], None]


def complete(client: SyncPrefectClient, flow_run: FlowRun) -> None:
    """As though the work were done."""
    client.set_flow_run_state(flow_run.id, Completed(), force=True)


def carry_out(client: SyncPrefectClient, flow_run: FlowRun) -> None:
    """Do the work in this process, by a flow run of its own."""
    client.set_flow_run_state(flow_run.id, Running(), force=True)
    validate(**flow_run.parameters)
    complete(client, flow_run)


def hold(client: SyncPrefectClient, flow_run: FlowRun) -> None:
    """Begin and never end."""
    client.set_flow_run_state(flow_run.id, Running(), force=True)


def await_held(client: SyncPrefectClient, flow_run: FlowRun) -> None:
    """Wait until the worker holds it: one that came later would open again what the test had completed."""
    while not client.read_flow_run(flow_run.id).state.is_running():  # type: ignore[union-attr]
        time.sleep(0.1)


@dataclass
class Worker:
    """work: what it does with a flow run. taken: those it took."""

    work: Work = carry_out
    taken: list[UUID] = field(default_factory=list)

    @contextmanager
    def online(self) -> Iterator[SyncPrefectClient]:
        """Pool, deployment and worker exist while this lasts; on the server that PREFECT_API_URL names."""
        over = threading.Event()
        with connected({}), get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
            client.send_worker_heartbeat(POOL, "in-a-thread", heartbeat_interval_seconds=600)
            deployment = client.create_deployment(client.create_flow(validate), POOL, work_pool_name=POOL)
            thread = threading.Thread(target=contextvars.copy_context().run, args=[self._serve, over])
            thread.start()
            try:
                yield client
            finally:
                over.set()
                thread.join()
                client.delete_deployment(deployment)
                client.delete_work_pool(POOL)

    def _serve(self, over: threading.Event) -> None:
        waiting = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
        with get_client(sync_client=True) as client:
            while not over.wait(0.1):
                for flow_run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=waiting)):
                    if flow_run.work_pool_name == POOL:
                        self.taken.append(flow_run.id)
                        self.work(client, flow_run)
