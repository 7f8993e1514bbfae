"""A lane is one (provider, model) with its client, limits and circuit breaker. Every call uses a lane."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from pydantic import SecretStr

from synth_core.errors import SynthError
from synth_core.providers.batch import Batches
from synth_core.providers.breaker import Breaker
from synth_core.providers.budget import Budget, Spending
from synth_core.providers.call import (
    ANSWERED,
    RETRYABLE,
    Complete,
    Connection,
    Reply,
    Request,
    failed,
    raised,
    scrub,
)
from synth_core.providers.cost_ledger import CallLedger
from synth_core.providers.limits import Pace, TokenAllowance, Width
from synth_core.providers.pricing import price
from synth_core.providers.provider import Provider
from synth_core.providers.table import find_provider, key_of, load_connect, require_price
from synth_core.records import Outcome, Usage
from synth_core.settings import Settings

Keep = Callable[[Reply], None]

_BYTES_PER_TOKEN = 3.0  # code and English have 3.5 to 4.5; a lower figure never reserves too little
_SPENT_QUOTA = 600.0  # seconds; a server that asks for a longer pause has spent the quota
_LONGEST_TEXT = 2_000_000  # characters; no max_tokens allows more, so the server is broken
_OVERLOADED = frozenset({503, 529})


class Lane:
    """Makes the calls to one model. Use it on the dispatcher's event loop only: it is not thread-safe."""

    def __init__(
        self, provider: Provider, model: str, connection: Connection, budget: Budget, ledger: CallLedger
    ) -> None:
        settings = connection.settings
        self.provider = provider
        self.model = model
        self.key = connection.key
        self.breaker = Breaker(provider, model)
        self.pace = Pace(settings.rpm / 60)
        self.width = Width(connection.workers if provider.writes_here else settings.concurrency)
        self.in_flight = 0
        self.finished: deque[float] = deque(maxlen=1000)  # when calls ended, for the live rate
        self._tokens = TokenAllowance(settings.tpm)
        self._connection = connection
        self._budget = budget
        self.time_left = budget.time_left
        self._ledger = ledger
        self._turn = asyncio.Lock()  # a first-in-first-out queue: only its holder checks the limits
        self._changed = asyncio.Event()
        self._expected_output = settings.max_tokens
        self._complete: Complete | None = None
        self.batches: Batches | None = None  # set when the settings ask for the provider's batch mode

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the provider's client. `stack` closes it."""
        if self._connection.settings.batch and self.provider.batch_module:
            jobs = importlib.import_module(self.provider.batch_module).connect(self._connection)
            self.batches = await stack.enter_async_context(jobs)
        else:
            connect = load_connect(self.provider)
            self._complete = await stack.enter_async_context(connect(self._connection))

    async def ask(self, request: Request, candidate: str, keep: Keep) -> Reply:
        """Wait for a turn in the queue, then make one call.

        keep: called with the reply as soon as it arrives, before any step that may fail or be cancelled.
        Raises `HopelessProvider` once the breaker has tripped.
        """
        worst = self.worst(request)
        estimate = worst.tokens - request.max_tokens + self._expected_output
        if reason := await self._wait_turn(estimate, worst):
            return failed(Outcome.OVER_BUDGET, reason)
        try:
            reply = await self._ask(request, candidate, worst, keep)
        finally:
            self.in_flight -= 1
            self._changed.set()
        self._tokens.take(_tokens(reply) - estimate)
        return reply

    def worst(self, request: Request, *, batch: bool = False) -> Spending:
        """The most that a call may cost: the estimated input plus all of `max_tokens`."""
        input_tokens = int(len(request.system + request.text) / _BYTES_PER_TOKEN) + 1
        usage = Usage(input_tokens=input_tokens, output_tokens=request.max_tokens)
        usd = price(self.provider, self.model, usage, batch=batch) or 0.0
        return Spending(usd=usd, tokens=input_tokens + request.max_tokens, calls=1)

    def account(
        self, number: int, reserved: Spending, reply: Reply, seconds: float, *, batch: bool = False
    ) -> Reply:
        """Record in the ledger and the budget what a call really cost. Returns the reply with its cost.

        The ledger and the budget keep the reservation if a bill is possible but the usage is unknown.
        """
        cost = price(self.provider, reply.serving_model or self.model, reply.usage, batch=batch)
        if cost is None:
            cost = price(self.provider, self.model, reply.usage, batch=batch)
        usage = reply.usage.model_copy(update={"cost_usd": cost})
        reply = replace(reply, usage=usage, seconds=seconds)
        unknown = not self.provider.writes_here and _is_usage_unknown(reply)
        if not self.provider.writes_here:
            self._ledger.end(number, reply, reserved if unknown else None)
        spent = Spending(usd=cost or 0.0, tokens=_tokens(reply), calls=1)
        self._budget.settle(reserved, reserved if unknown else spent)
        return reply

    def reserve_row(self, request: Request) -> str:
        """Reserve a row of a batch job. Returns an empty string, or names the budget that has no room."""
        return self._budget.reserve_now(self.worst(request, batch=True))

    def refuses_row(self, request: Request) -> str:
        """Name the budget that is spent, if one is. Then nobody needs to wait for the row any longer."""
        return self._budget.refuses(self.worst(request, batch=True))

    def release_row(self, request: Request) -> None:
        """Cancel the reservation of a row that got no answer."""
        self._budget.release(self.worst(request, batch=True))

    def account_row(self, request: Request, candidate: str, reply: Reply) -> Reply:
        """As `account`, for a row of a batch job. It records the start of the call too, with 0 seconds."""
        reserved = self.worst(request, batch=True)
        number = self._start(candidate, reserved)
        return self.account(number, reserved, self._tidy(reply), 0.0, batch=True)

    async def _ask(self, request: Request, candidate: str, reserved: Spending, keep: Keep) -> Reply:
        if reason := await self._budget.reserve(reserved):
            return failed(Outcome.OVER_BUDGET, reason)
        number = self._start(candidate, reserved)
        started = time.monotonic()
        reply = failed(Outcome.TIMEOUT, "the call was given up")
        try:
            reply = self._tidy(await self._call(request))
        finally:
            now = time.monotonic()
            try:
                keep(reply)
            finally:
                reply = self.account(number, reserved, reply, now - started)
        self._learn(reply, started, now)
        return reply

    def _start(self, candidate: str, reserved: Spending) -> int:
        if not self.provider.writes_here:
            return self._ledger.start(candidate, self.provider.name, self.model, reserved)
        self._ledger.write_here()
        return 0

    async def _call(self, request: Request) -> Reply:
        """Call with a deadline for the whole answer. The SDKs limit single reads only: a slow drip passes."""
        assert self._complete is not None
        try:
            async with asyncio.timeout(self._connection.settings.timeout):
                return await self._complete(request)
        except TimeoutError:
            seconds = self._connection.settings.timeout
            return failed(Outcome.TIMEOUT, f"no complete answer within {seconds:g} s")
        except SynthError:
            raise
        except Exception as error:  # an SDK failed on the server's answer
            return raised(error)

    async def _wait_turn(self, estimate: int, worst: Spending) -> str:
        """Wait until the call may start. Returns an empty string, or names a budget that is spent by then."""
        async with self._turn:
            while not (reason := self._budget.refuses(worst)):
                self.breaker.check()
                now = time.monotonic()
                self._changed.clear()
                wait = max(self.pace.delay(now), self._tokens.delay(now, estimate))
                if self.in_flight >= self.width.limit:
                    wait = float("inf")
                if wait <= 0:
                    self.pace.start(now, self.width.gap)
                    self._tokens.take(estimate)
                    self.in_flight += 1
                    break
                await self._until_changed(min(wait, self.time_left()))
            return reason

    async def _until_changed(self, seconds: float) -> None:
        """Wait until a call ends, at most `seconds`. Its end may trip the breaker or spend the budget, so
        even a long pause must notice it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await self._changed.wait()

    def _learn(self, reply: Reply, started: float, now: float) -> None:
        self.finished.append(now)
        if reply.outcome is Outcome.RATE_LIMITED:
            self.pace.refuse(now, started, reply.retry_after)
        elif reply.retry_after is not None and reply.outcome in RETRYABLE:
            self.pace.pause(now + reply.retry_after)
        if reply.outcome is Outcome.TIMEOUT or reply.status in _OVERLOADED:
            self.width.overload(now, started)
        elif reply.outcome is Outcome.OK:
            self.width.succeed(now - started)
            output = reply.usage.output_tokens + reply.usage.thinking_tokens
            self._expected_output += (output - self._expected_output) // 8
        self.breaker.observe(reply)

    def _tidy(self, reply: Reply) -> Reply:
        if len(reply.text) > _LONGEST_TEXT:
            detail = f"an answer of {len(reply.text)} characters; at most {_LONGEST_TEXT} are taken"
            return replace(reply, outcome=Outcome.BAD_RESPONSE, text="", error=detail)
        if (reply.retry_after or 0) > _SPENT_QUOTA:
            error = f"{reply.error} (asks to wait {reply.retry_after:g} s)"
            reply = replace(reply, outcome=Outcome.QUOTA, error=error)
        return replace(reply, error=scrub(reply.error, self.key)) if reply.error else reply


def _is_usage_unknown(reply: Reply) -> bool:
    """Whether a bill is possible but the usage is unknown: after a timeout, or if the answer has no usage."""
    answered = reply.outcome in ANSWERED or reply.status == 200
    return reply.outcome is Outcome.TIMEOUT or (answered and not _tokens(reply))


def _tokens(reply: Reply) -> int:
    return reply.usage.input_tokens + reply.usage.output_tokens + reply.usage.thinking_tokens


class Lanes:
    """The lanes of one run. A lane opens at the first call to its provider; `close` closes all of them.

    Use it on the dispatcher's event loop only.

    key: the key of `settings.model_name`'s provider if a Secret block holds it. None: use the environment.
    paid: the open lanes, except those of providers with `writes_here`.
    """

    def __init__(self, settings: Settings, key: SecretStr | None, budget: Budget, ledger: CallLedger) -> None:
        self.paid: list[Lane] = []
        self._settings = settings
        self._key = key
        self._budget = budget
        self._ledger = ledger
        self._lanes: dict[str, asyncio.Task[Lane]] = {}
        self._clients = AsyncExitStack()

    async def get(self, name: str) -> Lane:
        """The provider's lane. Cancelling one caller does not stop the opening: others may wait for it."""
        if name not in self._lanes:
            self._lanes[name] = asyncio.create_task(self._open(name))
        return await asyncio.shield(self._lanes[name])

    async def close(self) -> None:
        await self._clients.aclose()

    async def _open(self, name: str) -> Lane:
        provider, settings = find_provider(name), self._settings
        is_main = name == settings.model_name
        model = (settings.provider.model_id if is_main else "") or provider.default_model
        require_price(settings, provider, model)
        connection = Connection(
            settings=settings.provider,
            key=key_of(provider, self._key if is_main else None),
            workers=settings.num_worker,
        )
        lane = Lane(provider, model, connection, self._budget, self._ledger)
        await lane.open(self._clients)
        if not provider.writes_here:
            self.paid.append(lane)
        return lane
