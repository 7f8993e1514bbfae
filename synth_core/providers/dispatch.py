"""Turns prompts into completions. All calls to providers go through here; they share cache, limits, retries.

`Dispatcher.complete` blocks, and many threads may call it at once. The calls themselves run on one event loop
in one thread, so the limits hold for the whole run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from weakref import WeakValueDictionary

from pydantic import SecretStr

from synth_core.extraction import refuses
from synth_core.providers.answers import Answer, AnswerStore
from synth_core.providers.batch_rows import Row, ask_rows
from synth_core.providers.budget import Budget, Spending
from synth_core.providers.call import ANSWERED, Reply, Request
from synth_core.providers.completion import completed, question
from synth_core.providers.cost_ledger import CallLedger
from synth_core.providers.lane import Lane, Lanes
from synth_core.providers.retry import Asked, add_usage, ask
from synth_core.providers.salvage import salvage
from synth_core.records import Candidate, Outcome, Stage, operator_signature
from synth_core.settings import Settings

_SALVAGE_PAUSE = 5.0  # seconds before calls with a temporary failure are tried again
_GRACE = 5.0  # seconds that calls in flight may still take after the breaker has tripped
_RATE_WINDOW = 60.0  # seconds


@dataclass(frozen=True)
class Snapshot:
    """Counts of a run's calls, for the live display.

    cost_usd: without calls of unknown price; None if no call had a known price.
    answered: candidates that this session has finished asking: with a new answer, a cached one or a failure.
    """

    calls: int
    failed: int
    from_cache: int
    in_flight: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    unpriced_calls: int
    calls_per_minute: float
    answered: int


class Dispatcher:
    """Makes all provider calls of one run. A context manager; `close` ends the loop and the clients.

    key: the key of `settings.model_name`'s provider if a Secret block holds it. None: use the environment.
    run_dir: the run's folder, which holds the cost ledger. Calls already in it count towards the budgets.
    use_cache: whether to look up and store answers in `settings.cache_dir`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        key: SecretStr | None = None,
        run_dir: Path | None = None,
        use_cache: bool = True,
    ) -> None:
        self._settings = settings.resolved()
        self._loop = asyncio.new_event_loop()
        self._gate, self._closed = threading.Lock(), False
        self._ledger = CallLedger(run_dir)
        self._budget = Budget(settings.budget, self._ledger.totals.spending())
        self._lanes = Lanes(self._settings, key, self._budget, self._ledger)
        self._use_cache = use_cache
        self._answers: AnswerStore | None = None
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._done = self._good_answers = self._from_cache = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="dispatch", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._ledger.keep_noting(), self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def complete(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Give every live candidate its completion. Returns the candidates in the same order.

        Blocks until all calls have ended. A candidate whose calls failed gets the verdict PROVIDER_ERROR,
        REFUSAL or TRUNCATED.
        Raises `HopelessProvider` if every further call would fail. Answers received before that are kept.
        """
        future = self._start(self._complete_all(candidates))
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def admit(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Select the candidates that fit the budgets, in order, and count one call for each.

        Dead candidates are always selected. Use this if another process writes the programs: a worker does
        not know the budgets.
        """
        return self._start(self._admit(candidates)).result()

    @property
    def budget_spent(self) -> str:
        """Names the budget that had no room for a call, with its figures. Empty while there is room."""
        return self._budget.spent

    def snapshot(self) -> Snapshot:
        """Counts of the whole run, with earlier sessions. Thread-safe."""
        totals, lanes = self._ledger.totals, list(self._lanes.paid)
        since = time.monotonic() - _RATE_WINDOW
        recent = sum(1 for lane in lanes for at in list(lane.finished) if at >= since)
        cost = None if totals.unpriced and totals.unpriced == totals.outcomes.total() else totals.cost_usd
        return Snapshot(
            calls=totals.calls,
            failed=totals.failed,
            from_cache=self._from_cache,
            in_flight=sum(lane.in_flight for lane in lanes),
            input_tokens=totals.input_tokens,
            output_tokens=totals.output_tokens + totals.thinking_tokens,
            cost_usd=cost,
            unpriced_calls=totals.unpriced,
            calls_per_minute=recent * 60 / _RATE_WINDOW,
            answered=self._done,
        )

    def close(self) -> None:
        """Cancel the calls in flight; close clients, ledger and cache. Later calls raise `CancelledError`."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._ledger.close()

    def _start(self, work: Coroutine[Any, Any, list[Candidate]]) -> Future[list[Candidate]]:
        """Schedule work before `_close`, so that `_close` can cancel it. Work after it would never end."""
        with self._gate:
            if self._closed:
                work.close()
                raise CancelledError
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _close(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._lanes.close()
        if self._answers:
            self._answers.close()

    async def _complete_all(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Ask all at once, then ask again those that failed because the server had a temporary problem."""
        if self._settings.provider.batch:
            return await self._complete_in_batches(candidates)
        retries = self._settings.provider.retries
        done = await self._wave(candidates, retries)
        if not retries:
            return done
        return await salvage(
            candidates,
            done,
            self._ask_once_more,
            answered=lambda: self._good_answers,
            pause=_SALVAGE_PAUSE,
            time_left=self._budget.time_left,
        )

    async def _ask_once_more(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        self._done -= len(candidates)  # `_answered` will count them again
        return await self._wave(candidates, retries=0)

    async def _wave(self, candidates: Sequence[Candidate], retries: int) -> list[Candidate]:
        """Complete all at once. After the first exception, calls in flight get `_GRACE` seconds to end."""
        tasks = {
            index: asyncio.create_task(self._complete(candidate, retries))
            for index, candidate in enumerate(candidates)
            if candidate.alive
        }
        done = list(candidates)
        if not tasks:
            return done
        try:
            _, running = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
            if running:
                await asyncio.wait(running, timeout=_GRACE)
        finally:
            for task in tasks.values():
                task.cancel()
            ended = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error
        for index, task in tasks.items():
            done[index] = task.result()
        return done

    async def _complete(self, candidate: Candidate, retries: int) -> Candidate:
        lane = await self._lanes.get(candidate.specification.provider)
        request, key = question(candidate, lane, self._settings.provider)
        # If several ask the same question at once, one pays and the others find its answer in the cache.
        turn = self._asking.setdefault(key, asyncio.Lock()) if key else asyncio.Lock()
        async with turn:
            if known := self._known(candidate, request, key):
                return known
            asked = await ask(
                lane, request, candidate.id, retries, lambda reply: self._keep(key, candidate, lane, reply)
            )
        lane.breaker.check()
        return self._answered(candidate, request, asked)

    async def _admit(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        admitted = []
        for candidate in candidates:
            if candidate.alive:
                lane = await self._lanes.get(candidate.specification.provider)
                worst = lane.worst(question(candidate, lane, self._settings.provider)[0])
                if self._budget.reserve_now(worst):
                    continue
                self._ledger.write_here()
                self._budget.settle(worst, Spending(calls=1))
            admitted.append(candidate)
        return admitted

    async def _complete_in_batches(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """As `_complete_all`, in the provider's batch mode: questions not in the cache go into one job."""
        done = list(candidates)
        rows: dict[str, Row] = {}
        for index, candidate in enumerate(candidates):
            if not candidate.alive:
                continue
            lane = await self._lanes.get(candidate.specification.provider)
            request, key = question(candidate, lane, self._settings.provider)
            if known := self._known(candidate, request, key):
                done[index] = known
            elif key in rows:
                rows[key].owners.append(index)
            else:
                rows[key] = Row(lane, request, candidate, [index])
        await ask_rows(rows, Path(self._settings.cache_dir), self._settings.provider.retries, self._keep)
        for row in rows.values():
            for index in row.owners:
                done[index] = self._answered(candidates[index], row.request, row.asked)
        return done

    def _known(self, candidate: Candidate, request: Request, key: str) -> Candidate | None:
        """The candidate with its answer from the cache, or None."""
        store = self._store(key)
        answer = store.get(key) if store else None
        if answer is None:
            return None
        self._from_cache += 1
        self._done += 1
        reply = Reply(
            outcome=Outcome.OK,
            text=answer.text,
            serving_model=answer.serving_model,
            finish_reason=answer.finish_reason,
        )
        from_cache = (*candidate.telemetry.from_cache, Stage.LLM.value)
        telemetry = candidate.telemetry.model_copy(update={"from_cache": from_cache})
        return completed(candidate, request, reply, telemetry)

    def _answered(self, candidate: Candidate, request: Request, asked: Asked) -> Candidate:
        self._done += asked.reply.outcome is not Outcome.OVER_BUDGET
        self._good_answers += asked.reply.outcome in ANSWERED
        before = candidate.telemetry
        update = {
            "usage": add_usage(before.usage, asked.usage) if before.calls else asked.usage,
            "calls": before.calls + asked.calls,
            "seconds": {**before.seconds, Stage.LLM.value: asked.seconds},
        }
        return completed(candidate, request, asked.reply, before.model_copy(update=update))

    def _keep(self, key: str, candidate: Candidate, lane: Lane, reply: Reply) -> None:
        """Store good answers only. After a refusal, a truncation or an error, a later run asks again."""
        store = self._store(key)
        if not store or reply.outcome is not Outcome.OK or refuses(reply.text):
            return
        store.put(
            key,
            Answer(
                text=reply.text,
                serving_model=reply.serving_model,
                finish_reason=reply.finish_reason,
                usage=reply.usage,
            ),
            provider=lane.provider.name,
            model=lane.model,
            signature=operator_signature(candidate.specification.operators),
        )

    def _store(self, key: str) -> AnswerStore | None:
        """The store for this key's answer, or None. Opened at first use: without calls no file is made."""
        if not key or not self._use_cache:
            return None
        self._answers = self._answers or AnswerStore(self._settings.cache_dir)
        return self._answers
