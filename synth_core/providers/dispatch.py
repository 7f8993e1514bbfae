"""Prompts to completions: the one door to all providers, with the caches, limits and retries they share.

`Dispatcher.complete` blocks and may be called from many threads at once; the calls themselves run on one
event loop in a thread of its own, so the limits hold for the whole run.
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

_SALVAGE_PAUSE = 5.0  # seconds before calls that failed for the moment are tried again
_GRACE = 5.0  # seconds that calls in flight get once the breaker has tripped
_RATE_WINDOW = 60.0


@dataclass(frozen=True)
class Snapshot:
    """Where the calls of a run stand, for the live display.

    Money leaves unpriced calls out, and is None where no call at all could be priced. `answered` are the
    candidates whose asking has ended in this session, by an answer, a cached one or a failure.
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
    """All provider calls of one run. A context manager; `close` ends the loop and the clients.

    settings: resolved, so that cache folder and number of workers are decided.
    key: the key of `settings.model_name`'s provider, if it comes from a Secret block; else the environment's.
    run_dir: the run's folder, where the cost ledger lies; what it holds already counts towards the budgets.
    use_cache: whether answers are looked up and kept in `settings.cache_dir`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        key: SecretStr | None = None,
        run_dir: Path | None = None,
        use_cache: bool = True,
    ) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._gate, self._closed = threading.Lock(), False
        self._ledger = CallLedger(run_dir)
        self._budget = Budget(settings.budget, self._ledger.totals.spending())
        self._lanes = Lanes(self._settings, key, self._budget, self._ledger)
        self._use_cache = use_cache
        self._answers: AnswerStore | None = None
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._done = self._well = self._from_cache = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="dispatch", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._ledger.keep_noting(), self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def complete(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Give every live candidate its completion, in the same order; blocks until all have ended.

        A candidate whose calls failed gets the verdict PROVIDER_ERROR, REFUSAL or TRUNCATED. Raises
        `HopelessProvider` where every further call would fail; answers received by then are kept.
        """
        future = self._start(self._complete_all(candidates))
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def admit(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that the budgets leave room for (and the dead), in order; a call of each counts as made.

        For programs that are written elsewhere, by a worker that knows of no budget.
        """
        return self._start(self._admit(candidates)).result()

    @property
    def budget_spent(self) -> str:
        """Which budget left no room for a call, with what it came to; empty while there is room."""
        return self._budget.spent

    def snapshot(self) -> Snapshot:
        """Counts of the whole run, earlier sessions included; safe to call from any thread."""
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
        """Give up what is in flight, and at once what is asked later; close clients, ledger and cache."""
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
        """Begin on the loop, in front of `_close`, which ends it; behind that nothing would ever end."""
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
        """One wave of calls, then others for those that a passing trouble of the server outlasted."""
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
            answered=lambda: self._well,
            pause=_SALVAGE_PAUSE,
            time_left=self._budget.time_left,
        )

    async def _ask_once_more(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        self._done -= len(candidates)  # they count once they have ended for good
        return await self._wave(candidates, retries=0)

    async def _wave(self, candidates: Sequence[Candidate], retries: int) -> list[Candidate]:
        """Complete all at once; the first exception ends it, after a grace for what is in flight."""
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
        # Of those that ask the same at once one pays; the others find its answer kept.
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
        """The same by the provider's batch mode: what no cache answers goes into one job."""
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
        """The candidate with its answer from the cache, if that holds one."""
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
        self._well += asked.reply.outcome in ANSWERED
        before = candidate.telemetry
        update = {
            "usage": add_usage(before.usage, asked.usage) if before.calls else asked.usage,
            "calls": before.calls + asked.calls,
            "seconds": {**before.seconds, Stage.LLM.value: asked.seconds},
        }
        return completed(candidate, request, asked.reply, before.model_copy(update=update))

    def _keep(self, key: str, candidate: Candidate, lane: Lane, reply: Reply) -> None:
        """Only a good answer is kept: a refusal, a truncation or an error is asked for again another day."""
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
        """Where this key's answer is kept, if it is; a run that asks nobody makes no such file."""
        if not key or not self._use_cache:
            return None
        self._answers = self._answers or AnswerStore(self._settings.cache_dir)
        return self._answers
