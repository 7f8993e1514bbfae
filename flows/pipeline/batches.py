"""Carries batches through the eight stages: mapped task runs, a wave at a time, few batches in flight.

Batches flow independently of each other up to `filter`: one may be compiling while another waits for its
LLM. `filter` and `persist` take them strictly in order, so that which of two duplicates stays does not
depend on what finished first. A wave enters only when older batches have left: however fast the LLM
is, no more than `window` batches wait in front of validation, and they wait on disk.
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

_FREE = tuple(stage for stage in Stage if stage not in (Stage.FILTER, Stage.PERSIST))


@dataclass(frozen=True)
class Finished:
    """A batch that has left: its last manifest, and what all stages dropped of it."""

    batch: Batch
    manifest: Manifest
    dropped: Counter[str]


@dataclass(frozen=True)
class BatchPipeline:
    """`tasks` of one run; at most `window` batches in flight, entering `wave` at a time.

    seen: told of each manifest as its task run ends, from whatever thread; of all those of a batch before
        it leaves.
    hand_off: given the shards of a wave before they are validated, where another machine is to do that.
    spent: once it says so, no further batch enters.
    left: told of each batch that has passed `persist`, with the manifests of all stages.
    """

    tasks: dict[Stage, Task[..., Manifest]]
    seen: Callable[[Manifest], None]
    window: int
    wave: int
    hand_off: Task[..., None] | None = None
    spent: Callable[[], object] = lambda: False
    left: Callable[[Batch, Sequence[Manifest]], None] = lambda batch, manifests: None

    def carry(self, batches: Sequence[Batch]) -> Iterator[Finished]:
        """Run the batches; yields each that entered, in order, when it has passed `persist`.

        Raises what a task run raised, after its retries; batches ahead of it in order are finished then.
        """
        in_flight: deque[_Chain] = deque()
        for start in range(0, len(batches), self.wave):
            entering = batches[start : start + self.wave]
            while in_flight and len(in_flight) + len(entering) > self.window:
                yield in_flight.popleft().finish(self.left)
            if self.spent():
                break
            in_flight.extend(self._enter(entering, in_flight[-1].stages[-1] if in_flight else None))
        while in_flight:
            yield in_flight.popleft().finish(self.left)

    def _enter(self, batches: Sequence[Batch], previous: PrefectFuture[Manifest] | None) -> Iterator[_Chain]:
        upstream: Any = list(batches)
        columns = []
        handed: list[Any] = []
        for stage in _FREE:
            if stage is Stage.VALIDATE_EAGER and self.hand_off:
                handed = [self.hand_off.submit(list(upstream))]
            upstream = self.tasks[stage].map(upstream, wait_for=handed)
            columns.append(upstream)
        for batch, *stages in zip(batches, *columns, strict=True):
            order = [previous] if previous else None
            stages.append(self.tasks[Stage.FILTER].submit(stages[-1], wait_for=order))
            stages.append(self.tasks[Stage.PERSIST].submit(stages[-1]))
            previous = stages[-1]
            chain = _Chain(batch, handed, stages)
            for future in stages:
                future.add_done_callback(functools.partial(self._note, chain))
            yield chain

    def _note(self, chain: _Chain, future: PrefectFuture[Manifest]) -> None:
        try:
            future.wait()  # it is done; without this `state` asks the server
            if future.state.is_completed():
                self.seen(future.result())
        finally:
            chain.noted.release()


@dataclass(frozen=True)
class _Chain:
    """A batch on its way: the hand-off that it waits for, if any, and its eight task runs.

    noted: released for each of the eight once it has ended and been told of.
    """

    batch: Batch
    handed: list[PrefectFuture[None]]
    stages: list[PrefectFuture[Manifest]]
    noted: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def finish(self, left: Callable[[Batch, Sequence[Manifest]], None]) -> Finished:
        """Wait for the last task run; raise the fault of the first that failed."""
        self.stages[-1].wait()
        futures: list[PrefectFuture[Any]] = [*self.handed, *self.stages]
        for future in futures:
            future.wait()
            if future.state.is_failed() or future.state.is_crashed():
                future.state.result()
        if not self.stages[-1].state.is_completed():
            name = f"r{self.batch.round}-b{self.batch.batch:04d}"
            raise EnvironmentFault(f"batch {name} did not run: {self.stages[-1].state}")
        manifests = [future.result() for future in self.stages]
        for _ in self.stages:  # a future wakes who waits for it before it calls back
            self.noted.acquire()
        left(self.batch, manifests)
        dropped = sum((Counter(manifest.failed) for manifest in manifests), Counter[str]())
        return Finished(self.batch, manifests[-1], dropped)
