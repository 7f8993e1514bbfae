"""Hands shards to the deployment `validate/gpu` and waits for them there.

The worker leaves its results under the keys that the run itself would use, so afterwards the run's own
validation tasks find them; if the pool can't do it, the same tasks do the work here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prefect import get_client, get_run_logger, task
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from prefect.tasks import Task

from synth_core.errors import EnvironmentFault, UsageError
from synth_core.records import Manifest, Stage, sha256
from synth_core.settings import Settings
from synth_core.store import Run, describe_shard, read_shard
from synth_core.validation.engine import Engine
from tasks.cache import Batch, ShardCache
from tasks.stages import RunEnding
from tasks.storage import fetch, send
from tasks.versions import validation_versions

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENT = "validate/gpu"
POOL = "gpu"
_POLL_SECONDS = 2.0
_START_SECONDS = 120.0  # a worker with nothing else to do may take this long to begin, on a busy server
_ARRIVAL_SECONDS = 60.0  # a network file system may show another machine's new file this late


@dataclass
class GpuPool:
    """One run's view of the pool. Once it has waited in vain it asks again, but does not wait again.

    closed: set when the run ends; whoever waits then stops, and what was started in the pool is cancelled.
    """

    run: Run
    cache: ShardCache
    closed: threading.Event
    _given_up: bool = field(default=False)

    def task(self) -> Task[..., None]:
        """The Prefect task that hands a list of shards over and ends when they are back or given up."""

        def validate(upstream: list[Manifest]) -> None:
            self.validate(upstream)

        first = "hand-off-r{upstream[0].round}-b{upstream[0].batch:04d}"
        return task(name="hand-off", task_run_name=first, persist_result=False)(validate)

    def validate(self, shards: Sequence[Manifest]) -> None:
        """Returns when the results lie on the cache, or when the work is left to this machine.

        Raises `EnvironmentFault` where the pool could not do it, and `pool_fallback` is "fail" or programs
        run on a GPU that this machine lacks; `RunEnding` where the run ends meanwhile.
        """
        self._pause(0)
        try:
            missing = self._missing(shards)
            if missing:
                self._await_worker()
                self._await_results(shards, missing)
        except RunEnding:
            raise
        except EnvironmentFault as trouble:
            self._fall_back(str(trouble))

    def _fall_back(self, trouble: str) -> None:
        settings = self.run.settings.validation
        if settings.pool_fallback == "fail":
            what = f"{trouble}; with pool_fallback=local this machine would validate instead"
            raise EnvironmentFault(what) from None
        if settings.device == "cuda":
            try:
                with Engine(settings, 1) as engine:
                    engine.probe()
            except UsageError as error:
                what = f"{trouble}; nor can this machine validate instead: {error}"
                raise EnvironmentFault(what) from None
        get_run_logger().warning("run=%s %s; validating here instead", self.run.run_id, trouble)

    def _missing(self, shards: Sequence[Manifest]) -> list[Manifest]:
        return [shard for shard in shards if not self._is_done(shard)]

    def _is_done(self, shard: Manifest) -> bool:
        """Whether both validation stages have left their shards, as after a resume."""
        eager = self._collect(Stage.VALIDATE_EAGER, shard)
        if eager is None:
            return False
        upstream = describe_shard(eager, read_shard(eager), stage=Stage.VALIDATE_EAGER)
        return self._collect(Stage.VALIDATE_COMPILE, upstream) is not None

    def _collect(self, stage: Stage, upstream: Batch | Manifest) -> Path | None:
        """The stage's shard, brought here where it lies in the storage only."""
        shard = self.cache.shard(stage, self.cache.key(stage, upstream))
        storage = self.run.settings.validation.pool_storage
        return shard if shard.exists() or (storage and fetch(shard, storage)) else None

    def _await_worker(self) -> None:
        """Wait for the pool to have a worker, as long as `pool_wait` says."""
        deadline = time.monotonic() + (0 if self._given_up else self.run.settings.validation.pool_wait)
        with get_client(sync_client=True) as client:
            while trouble := _why_idle(client):
                if time.monotonic() >= deadline:
                    self._given_up = True
                    raise EnvironmentFault(trouble)
                self._pause()
        self._given_up = False

    def _await_results(self, shards: Sequence[Manifest], missing: Sequence[Manifest]) -> None:
        """Have the deployment validate what is missing of the shards, and collect what it leaves."""
        flow_run = self._start(shards, missing)
        self._await_end(flow_run)
        deadline, asked = time.monotonic() + _ARRIVAL_SECONDS, len(missing)
        while missing := self._missing(missing):
            if time.monotonic() >= deadline:
                where = self.run.settings.validation.pool_storage or self.run.output_dir
                raise EnvironmentFault(
                    f"{DEPLOYMENT} completed, yet of {asked} shards {len(missing)} have no result in"
                    f" {where} (flow run {flow_run.id}); do both machines see that?"
                )
            self._pause()

    def _start(self, shards: Sequence[Manifest], missing: Sequence[Manifest]) -> FlowRun:
        """A flow run for what is missing of these shards; the one that a killed run has left under way, if
        there is one: by all of the shards it is known, for it may have done some of them since.
        """
        storage = self.run.settings.validation.pool_storage
        if storage:
            for shard in missing:
                send(Path(shard.path), storage)
        parameters = {
            "settings": _for_worker(self.run.settings).model_dump(mode="json"),
            "run_id": self.run.run_id,
            "shards": [shard.model_dump(mode="json") for shard in missing],
            "versions": validation_versions(),
        }
        key = sha256(json.dumps([self.run.run_id, *(shard.digest for shard in shards)]))
        attempt = 0
        while True:
            try:
                started = run_deployment(
                    DEPLOYMENT, parameters=parameters, timeout=0, idempotency_key=f"{key}-{attempt}"
                )
            except ObjectNotFound:
                what = f"there is no deployment {DEPLOYMENT} (prefect deploy --all makes it)"
                raise EnvironmentFault(what) from None
            flow_run = cast("FlowRun", started)
            if flow_run.state is None or not (flow_run.state.is_final() or flow_run.state.is_cancelling()):
                return flow_run
            attempt += 1

    def _await_end(self, flow_run: FlowRun) -> None:
        """Wait for the flow run as long as it gets on; cancel it where it does not, or nobody waits."""
        stuck_since: float | None = None
        with get_client(sync_client=True) as client:
            try:
                while not (state := _state(client, flow_run)).is_final():
                    trouble, patience = _why_stuck(client, state)
                    stuck_since = (stuck_since or time.monotonic()) if trouble else None
                    patience = max(patience, self.run.settings.validation.pool_wait)
                    if stuck_since and time.monotonic() - stuck_since >= patience:
                        raise EnvironmentFault(trouble)
                    self._pause()
            except EnvironmentFault:
                client.set_flow_run_state(flow_run.id, Cancelling())
                raise
        if not state.is_completed():
            why = (state.message or "").partition("\n")[0]
            raise EnvironmentFault(f"{DEPLOYMENT} ended as {state.name} (flow run {flow_run.id}): {why}")

    def _pause(self, seconds: float | None = None) -> None:
        if self.closed.wait(_POLL_SECONDS if seconds is None else seconds):
            raise RunEnding("the run is ending; its resume hands these shards over")


def _for_worker(settings: Settings) -> Settings:
    """Without what was decided for this machine: how many cores it has, where its caches lie, its Dask."""
    return settings.model_copy(
        update={"runner": "thread", "dask_address": "", "num_worker": 0, "cache_dir": ""}
    )


def _state(client: SyncPrefectClient, flow_run: FlowRun) -> State:
    state = client.read_flow_run(flow_run.id).state
    assert state is not None
    return state


def _why_stuck(client: SyncPrefectClient, state: State) -> tuple[str, float]:
    """What keeps a flow run in this state from getting on (empty: nothing), and the least patience with it.

    Behind other flow runs of the pool it waits its turn, however long they take.
    """
    if not (state.is_scheduled() or state.is_pending()):
        return _why_idle(client, begun=True), 0.0
    if trouble := _why_idle(client):
        return trouble, 0.0
    return ("" if _is_busy(client) else f"no worker of the pool {POOL!r} takes {DEPLOYMENT}"), _START_SECONDS


def _why_idle(client: SyncPrefectClient, *, begun: bool = False) -> str:
    """What keeps the pool from starting flow runs, or from ending one that has begun; empty: nothing."""
    try:
        paused = client.read_work_pool(POOL).is_paused
        workers = client.read_workers_for_work_pool(POOL)
    except ObjectNotFound:
        paused, workers = False, []
    if not any(worker.status == WorkerStatus.ONLINE for worker in workers):
        return f"the work pool {POOL!r} has no worker (start one: prefect worker start --pool {POOL})"
    if paused and not begun:
        return f"the work pool {POOL!r} is paused (prefect work-pool resume {POOL})"
    return ""


def _is_busy(client: SyncPrefectClient) -> bool:
    running = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    return bool(
        client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=running),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
            limit=1,
        )
    )
