"""Have the deployment `validate/gpu` validate shards, and wait for the results.

The pool's worker stores its results under the keys that the run itself would use, so the run's own validation
tasks find them afterwards. If the pool fails, these tasks do the work on this machine.
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

from flows.prefect_server.dead_runs import SILENCE, mark_if_dead
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
_START_SECONDS = 120.0  # on a busy server, an idle worker may take this long to start a flow run
_ARRIVAL_SECONDS = 60.0  # a network file system may show another machine's new file this late
_CHECK_SECONDS = 60.0  # between two checks whether a flow run of the pool is dead


@dataclass
class GpuPool:
    """The pool as one run uses it. It waits for a worker only once; if none came, it no longer waits.

    closed: set when the run ends. Waiting stops then, and flow runs that were started in the pool are
    cancelled.
    """

    run: Run
    cache: ShardCache
    closed: threading.Event
    _given_up: bool = field(default=False)

    def task(self) -> Task[..., None]:
        """Return the Prefect task that has the pool validate a list of shards, and ends when that is over."""

        def validate(upstream: list[Manifest]) -> None:
            self.validate(upstream)

        name = "validate-in-pool-r{upstream[0].round}-b{upstream[0].batch:04d}"
        return task(name="validate-in-pool", task_run_name=name, persist_result=False)(validate)

    def validate(self, shards: Sequence[Manifest]) -> None:
        """Return when the results are in the shard cache, or when this machine should do the work.

        Raises `RunEnding` if the run ends meanwhile. Raises `EnvironmentFault` if the pool failed and this
        machine must not take over: `pool_fallback` is "fail", or programs run on a GPU that it lacks.
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
            what = f"{trouble}; set pool_fallback=local to validate on this machine instead"
            raise EnvironmentFault(what) from None
        if settings.device == "cuda":
            try:
                with Engine(settings, 1) as engine:
                    engine.probe()
            except UsageError as error:
                what = f"{trouble}; nor can this machine validate: {error}"
                raise EnvironmentFault(what) from None
        get_run_logger().warning("run=%s %s; validating on this machine instead", self.run.run_id, trouble)

    def _missing(self, shards: Sequence[Manifest]) -> list[Manifest]:
        return [shard for shard in shards if not self._is_done(shard)]

    def _is_done(self, shard: Manifest) -> bool:
        """Return whether both validation stages have their shards, as after a resume."""
        eager = self._collect(Stage.VALIDATE_EAGER, shard)
        if eager is None:
            return False
        upstream = describe_shard(eager, read_shard(eager), stage=Stage.VALIDATE_EAGER)
        return self._collect(Stage.VALIDATE_COMPILE, upstream) is not None

    def _collect(self, stage: Stage, upstream: Batch | Manifest) -> Path | None:
        """Return the stage's shard, fetched from the storage if it is only there; None if there is none."""
        shard = self.cache.shard(stage, self.cache.key(stage, upstream))
        storage = self.run.settings.validation.pool_storage
        return shard if shard.exists() or (storage and fetch(shard, storage)) else None

    def _await_worker(self) -> None:
        """Wait for the pool to have a worker, at most `pool_wait` seconds."""
        deadline = time.monotonic() + (0 if self._given_up else self.run.settings.validation.pool_wait)
        with get_client(sync_client=True) as client:
            while trouble := _why_idle(client):
                if time.monotonic() >= deadline:
                    self._given_up = True
                    raise EnvironmentFault(trouble)
                self._pause()
        self._given_up = False

    def _await_results(self, shards: Sequence[Manifest], missing: Sequence[Manifest]) -> None:
        """Have the deployment validate the missing shards, and collect its results."""
        flow_run = self._start(shards, missing)
        self._await_end(flow_run)
        deadline, asked = time.monotonic() + _ARRIVAL_SECONDS, len(missing)
        while missing := self._missing(missing):
            if time.monotonic() >= deadline:
                where = self.run.settings.validation.pool_storage or self.run.output_dir
                raise EnvironmentFault(
                    f"{DEPLOYMENT} completed, yet of {asked} shards {len(missing)} have no result in"
                    f" {where} (flow run {flow_run.id}); can both machines reach it?"
                )
            self._pause()

    def _start(self, shards: Sequence[Manifest], missing: Sequence[Manifest]) -> FlowRun:
        """Return a flow run that validates the missing shards.

        If a killed run left such a flow run unfinished, return that one. It is found by the list of all
        shards, because some of them may have been validated since.
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
                what = f"there is no deployment {DEPLOYMENT} (create it: prefect deploy --all)"
                raise EnvironmentFault(what) from None
            flow_run = cast("FlowRun", started)
            if flow_run.state is None or not (flow_run.state.is_final() or flow_run.state.is_cancelling()):
                return flow_run
            attempt += 1

    def _await_end(self, flow_run: FlowRun) -> None:
        """Wait until the flow run has ended. Cancel it if it makes no progress, or if this run ends."""
        stuck_since: float | None = None
        next_check = time.monotonic() + SILENCE.total_seconds()
        with get_client(sync_client=True) as client:
            try:
                while not (state := _state(client, flow_run)).is_final():
                    trouble, patience = _why_stuck(client, state)
                    stuck_since = (stuck_since or time.monotonic()) if trouble else None
                    patience = max(patience, self.run.settings.validation.pool_wait)
                    if stuck_since and time.monotonic() - stuck_since >= patience:
                        raise EnvironmentFault(trouble)
                    if time.monotonic() >= next_check:
                        next_check = time.monotonic() + _CHECK_SECONDS
                        mark_if_dead(flow_run.id)  # then its state is final
                    self._pause()
            except EnvironmentFault:
                client.set_flow_run_state(flow_run.id, Cancelling())
                raise
        if not state.is_completed():
            why = (state.message or "").partition("\n")[0]
            raise EnvironmentFault(f"{DEPLOYMENT} ended as {state.name} (flow run {flow_run.id}): {why}")

    def _pause(self, seconds: float | None = None) -> None:
        if self.closed.wait(_POLL_SECONDS if seconds is None else seconds):
            raise RunEnding("the run is ending; its resume validates these shards")


def _for_worker(settings: Settings) -> Settings:
    """Drop what was decided for this machine: its number of cores, its cache folder, its Dask cluster."""
    return settings.model_copy(
        update={"runner": "thread", "dask_address": "", "num_worker": 0, "cache_dir": ""}
    )


def _state(client: SyncPrefectClient, flow_run: FlowRun) -> State:
    state = client.read_flow_run(flow_run.id).state
    assert state is not None
    return state


def _why_stuck(client: SyncPrefectClient, state: State) -> tuple[str, float]:
    """Return why a flow run in this state makes no progress (empty: it does), and how long to tolerate that.

    A flow run that waits behind others of the pool is not stuck, however long they take.
    """
    if not (state.is_scheduled() or state.is_pending()):
        return _why_idle(client, begun=True), 0.0
    if trouble := _why_idle(client):
        return trouble, 0.0
    return ("" if _is_busy(client) else f"no worker of the pool {POOL!r} takes {DEPLOYMENT}"), _START_SECONDS


def _why_idle(client: SyncPrefectClient, *, begun: bool = False) -> str:
    """Return why the pool cannot start flow runs, or finish one that has begun; empty if it can."""
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
