"""Stops a run whose every further call would fail, and says what it counted."""

from __future__ import annotations

import time
from collections import Counter

from synth_core.errors import HopelessProvider
from synth_core.providers.call import HOPELESS, Reply
from synth_core.providers.table import Provider
from synth_core.records import Outcome

_HOPELESS_IN_A_ROW = (
    3  # a gateway may answer one 401 by mistake; three with no success between are no mistake
)
_FAILED_IN_A_ROW, _FAILED_FOR = 20, 20.0  # no call ever went well: that many failures over that many seconds
_REJECTED_IN_A_ROW = 10  # no call ever went well and the server rejects what we ask
_ANSWERED = frozenset({Outcome.OK, Outcome.TRUNCATED, Outcome.BLOCKED})


class Breaker:
    """Trips on hopeless outcomes (key, quota, model): at the first one if no call ever went well, else at
    three in a row. A server that never gave one answer trips it too, after patience. Rate limits never do."""

    def __init__(self, provider: Provider, model: str) -> None:
        self._provider = provider
        self._model = model
        self._counts: Counter[Outcome] = Counter()
        self._in_a_row = 0
        self._hopeless_in_a_row = 0
        self._first_error = ""
        self._first_failure = 0.0
        self._answered = False
        self.reason = ""

    def check(self) -> None:
        """Raise `HopelessProvider` once tripped."""
        if self.reason:
            raise HopelessProvider(self.reason)

    def observe(self, reply: Reply) -> None:
        """Count one call."""
        self._counts[reply.outcome] += 1
        if reply.outcome in _ANSWERED:
            self._answered = True
            self._in_a_row = self._hopeless_in_a_row = 0
            self._first_error = ""
            return
        if reply.outcome is Outcome.RATE_LIMITED:
            return
        if not self._in_a_row:
            self._first_failure = time.monotonic()
        self._in_a_row += 1
        self._hopeless_in_a_row = self._hopeless_in_a_row + 1 if reply.outcome in HOPELESS else 0
        self._first_error = self._first_error or reply.error
        if self._is_hopeless(reply):
            self.reason = self.reason or self._explain(reply)

    def _is_hopeless(self, reply: Reply) -> bool:
        if self._answered:
            return self._hopeless_in_a_row >= _HOPELESS_IN_A_ROW
        if reply.outcome in HOPELESS:
            return True
        if reply.outcome is Outcome.BAD_REQUEST:
            return self._in_a_row >= _REJECTED_IN_A_ROW
        return self._in_a_row >= _FAILED_IN_A_ROW and time.monotonic() - self._first_failure >= _FAILED_FOR

    def _explain(self, reply: Reply) -> str:
        total = self._counts.total()
        counted = ", ".join(f"{count} {outcome}" for outcome, count in self._counts.most_common())
        advice = {
            Outcome.AUTH: f"check {self._provider.key_variable or 'the key'}",
            Outcome.QUOTA: "raise the quota or wait for it, then run `synth resume`",
            Outcome.UNKNOWN_MODEL: "name a model the server has by --model-id, or check --base-url",
        }.get(reply.outcome, "check --base-url and whether the server runs, then run `synth resume`")
        return (
            f"stopped calling {self._provider.name} ({self._model}): the last {self._in_a_row} of {total}"
            f" calls failed ({counted}). First: {self._first_error}. To mend it: {advice}"
        )
