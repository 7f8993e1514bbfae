"""Run batches through the eight stages as mapped task runs, a wave at a time, with few batches in flight.

Up to `filter`, batches do not wait for each other: one may compile while another waits for its LLM.
`filter` and `persist` take them strictly in order. So which of two duplicates is kept does not depend on
which batch finished first. A wave starts only after older batches have finished. However fast the LLM is,
at most `window` batches wait for validation, and they wait on disk.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect.futures import PrefectFuture
from prefect.tasks import Task

from synth_core.errors import EnvironmentFault
from synth_core.records import Manifest, Stage
from tasks.cache import Batch

_UNORDERED = tuple(stage for stage in Stage if stage not in (Stage.FILTER, Stage.PERSIST))


@dataclass(frozen=True)
class FinishedBatch:
    """A batch that has passed `persist`: its last manifest, and how many candidates the stages dropped."""

    batch: Batch
    manifest: Manifest
    dropped: Counter[str]


@dataclass(frozen=True)
class BatchPipeline:
    """The tasks of one run. At most `window` batches are in flight; `wave` batches start together.

    on_manifest: called with each manifest when its task run ends, from any thread. All manifests of a batch
        are reported before `on_finished`.
    pool_task: if another machine validates, the task that is given the shards of a wave first.
    is_spent: once it returns something true, no further batch starts.
    on_finished: called with each batch that has passed `persist`, and its manifests of all stages.
    """

    tasks: dict[Stage, Task[..., Manifest]]
    on_manifest: Callable[[Manifest], None]
    window: int
    wave: int
    pool_task: Task[..., None] | None = None
    is_spent: Callable[[], object] = lambda: False
    on_finished: Callable[[Batch, Sequence[Manifest]], None] = lambda batch, manifests: None

    def run(self, batches: Sequence[Batch]) -> Iterator[FinishedBatch]:
        """Run the batches. Yields each one that was started, in order, when it has passed `persist`.

        Raises what a task run raised after its retries. All batches before that one are finished then.
        """
        in_flight: deque[_RunningBatch] = deque()
        for start in range(0, len(batches), self.wave):
            wave = batches[start : start + self.wave]
            while in_flight and len(in_flight) + len(wave) > self.window:
                yield in_flight.popleft().finish(self.on_finished)
            if self.is_spent():
                break
            in_flight.extend(self._start(wave, in_flight[-1].stages[-1] if in_flight else None))
        while in_flight:
            yield in_flight.popleft().finish(self.on_finished)

    def _start(
        self, batches: Sequence[Batch], previous: PrefectFuture[Manifest] | None
    ) -> Iterator[_RunningBatch]:
        upstream: Any = list(batches)
        columns = []
        pool_runs: list[Any] = []
        for stage in _UNORDERED:
            if stage is Stage.VALIDATE_EAGER and self.pool_task:
                pool_runs = [self.pool_task.submit(list(upstream))]
            upstream = self.tasks[stage].map(upstream, wait_for=pool_runs)
            columns.append(upstream)
        for batch, *stages in zip(batches, *columns, strict=True):
            order = [previous] if previous else None
            stages.append(self.tasks[Stage.FILTER].submit(stages[-1], wait_for=order))
            stages.append(self.tasks[Stage.PERSIST].submit(stages[-1]))
            previous = stages[-1]
            running = _RunningBatch(batch, pool_runs, stages)
            for future in stages:
                future.add_done_callback(functools.partial(self._report, running))
            yield running

    def _report(self, running: _RunningBatch, future: PrefectFuture[Manifest]) -> None:
        try:
            future.wait()  # the future is done, but without this `state` asks the server
            if future.state.is_completed():
                self.on_manifest(future.result())
        finally:
            running.reported.release()


@dataclass(frozen=True)
class _RunningBatch:
    """A batch in flight: the pool's task run that it waits for, if any, and its eight task runs.

    reported: released once for each of the eight, after it has ended and its manifest was reported.
    """

    batch: Batch
    pool_runs: list[PrefectFuture[None]]
    stages: list[PrefectFuture[Manifest]]
    reported: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def finish(self, on_finished: Callable[[Batch, Sequence[Manifest]], None]) -> FinishedBatch:
        """Wait for the last task run. Raises the error of the first one that failed."""
        self.stages[-1].wait()
        futures: list[PrefectFuture[Any]] = [*self.pool_runs, *self.stages]
        for future in futures:
            future.wait()
            if future.state.is_failed() or future.state.is_crashed():
                future.state.result()
        if not self.stages[-1].state.is_completed():
            name = f"r{self.batch.round}-b{self.batch.batch:04d}"
            raise EnvironmentFault(f"batch {name} did not run: {self.stages[-1].state}")
        manifests = [future.result() for future in self.stages]
        for _ in self.stages:  # a future wakes those who wait for it before it runs its callbacks
            self.reported.acquire()
        on_finished(self.batch, manifests)
        dropped = sum((Counter(manifest.failed) for manifest in manifests), Counter[str]())
        return FinishedBatch(self.batch, manifests[-1], dropped)
