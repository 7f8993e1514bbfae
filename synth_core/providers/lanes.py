"""The lanes of one run: each is opened when its provider is first asked, and all are closed together."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from pydantic import SecretStr

from synth_core.providers.budget import Budget
from synth_core.providers.call import Connection
from synth_core.providers.calls import CallLedger
from synth_core.providers.lane import Lane
from synth_core.providers.table import find_provider, key_of, require_price
from synth_core.settings import Settings


class Lanes:
    """Lives on dispatch's event loop.

    key: the key of `settings.model_name`'s provider, if it comes from a Secret block; else the environment's.
    paid: the lanes that are open, without those of a provider which writes here.
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
        """The provider's lane; whoever gives up waiting for it does not keep others from it."""
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
