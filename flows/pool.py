"""Hands shards to the deployment `validate/gpu` and waits for them there.

The worker leaves its results under the keys that the run itself would use, so afterwards the run's own
validation tasks find them; if the pool can't do it, the same tasks do the work here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from prefect.tasks import Task

from synth_core.errors import EnvironmentFault
from synth_core.records import Manifest, Stage
from synth_core.store import Run, describe_shard, read_shard
from tasks.cache import Shelf
from tasks.storage import send

DEPLOYMENT = "validate/gpu"
POOL = "gpu"
_POLL_SECONDS = 2.0


@dataclass
class Pool:
    """One run's view of the pool. Once it has waited in vain it asks again, but does not wait again."""

    run: Run
    shelf: Shelf
    _given_up: bool = field(default=False)

    def task(self) -> Task[..., None]:
        """The Prefect task that hands a list of shards over and ends when they are back or given up."""

        def hand_off(upstream: list[Manifest]) -> None:
            self.hand_off(upstream)

        first = "hand-off-r{upstream[0].round}-b{upstream[0].batch:04d}"
        return task(name="hand-off", task_run_name=first, persist_result=False)(hand_off)

    def hand_off(self, shards: Sequence[Manifest]) -> None:
        """Returns when the results lie on the shelf, or when the work is left to this machine.

        Raises `EnvironmentFault` where `pool_fallback` is "fail" and the pool could not do it.
        """
        settings = self.run.settings.validation
        missing = [shard for shard in shards if not self._is_done(shard)]
        if not missing:
            return
        trouble = self._await_worker() or self._await_results(missing)
        if not trouble:
            return
        if settings.pool_fallback == "fail":
            raise EnvironmentFault(f"{trouble}; with pool_fallback=local this machine would validate instead")
        get_run_logger().warning("run=%s %s; validating here instead", self.run.run_id, trouble)

    def _is_done(self, shard: Manifest) -> bool:
        """Whether both validation stages have left their shards, as after a resume."""
        eager = self.shelf.find(Stage.VALIDATE_EAGER, self.shelf.key(Stage.VALIDATE_EAGER, shard))
        if eager is None:
            return False
        upstream = describe_shard(eager, read_shard(eager), stage=Stage.VALIDATE_EAGER)
        compiled = self.shelf.key(Stage.VALIDATE_COMPILE, upstream)
        return self.shelf.find(Stage.VALIDATE_COMPILE, compiled) is not None

    def _await_worker(self) -> str:
        """Wait for the pool to have a worker; what is wrong if it never does."""
        deadline = time.monotonic() + (0 if self._given_up else self.run.settings.validation.pool_wait)
        while not _has_worker():
            if time.monotonic() >= deadline:
                self._given_up = True
                return f"the work pool {POOL!r} has no worker (start one: prefect worker start --pool {POOL})"
            time.sleep(_POLL_SECONDS)
        self._given_up = False
        return ""

    def _await_results(self, shards: Sequence[Manifest]) -> str:
        """Have the deployment validate the shards; what went wrong, if anything did."""
        settings, storage = self.run.settings, self.run.settings.validation.pool_storage
        if storage:
            for shard in shards:
                send(Path(shard.path), storage)
        parameters = {
            "settings": settings.model_dump(mode="json"),
            "run_id": self.run.run_id,
            "shards": [shard.model_dump(mode="json") for shard in shards],
        }
        try:
            started = cast("FlowRun", run_deployment(DEPLOYMENT, parameters=parameters, timeout=0))
        except ObjectNotFound:
            return f"there is no deployment {DEPLOYMENT} (prefect deploy --all makes it)"
        return self._await_end(started.id)

    def _await_end(self, flow_run_id: UUID) -> str:
        """Wait for the flow run, as long as the pool has a worker that may carry it out."""
        with get_client(sync_client=True) as client:
            alone_since: float | None = None
            while True:
                flow_run = client.read_flow_run(flow_run_id)
                if flow_run.state and flow_run.state.is_completed():
                    return ""
                if flow_run.state and flow_run.state.is_final():
                    return f"{DEPLOYMENT} ended as {flow_run.state_name} (flow run {flow_run_id})"
                alone_since = None if _has_worker() else alone_since or time.monotonic()
                if alone_since and time.monotonic() - alone_since > self.run.settings.validation.pool_wait:
                    client.set_flow_run_state(flow_run_id, Cancelling(), force=True)
                    return f"the work pool {POOL!r} lost its workers"
                time.sleep(_POLL_SECONDS)


def _has_worker() -> bool:
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            return False
        workers = client.read_workers_for_work_pool(POOL)
    return any(worker.status == WorkerStatus.ONLINE for worker in workers)
