"""Stops a run whose every further call would fail, and says what it counted."""

from __future__ import annotations

import time
from collections import Counter

from synth_core.errors import HopelessProvider
from synth_core.providers.call import ANSWERED, HOPELESS, Reply
from synth_core.providers.provider import Provider
from synth_core.records import Outcome

# A gateway may answer one 401 by mistake; three with no success between are no mistake.
_HOPELESS_UNANSWERED = 3
_FAILED_IN_A_ROW, _FAILED_FOR = 20, 20.0  # no call ever went well: that many failures over that many seconds
# No call ever went well, and so many times the server rejects what we ask or the code that asks raises.
_ALIKE = 10
_Kind = tuple[bool, bool, bool]
_WELL = ANSWERED - {Outcome.EMPTY}  # a server that says nothing may do so for ever


class Breaker:
    """Trips on hopeless outcomes (key, quota, model): at the first one if no call ever went well, else at the
    third since the last answer. Where no call ever went well, rejections or exceptions of the provider's own
    code trip it within seconds, and any other failures after patience. Rate limits never do. Only an answer
    starts the counts anew: failures of another kind between them are no sign of hope."""

    def __init__(self, provider: Provider, model: str) -> None:
        self._provider = provider
        self._model = model
        self._calls = self._answered = 0  # rate limits are no calls here
        self._row: Counter[Outcome] = Counter()  # failures since the last answer
        self._alike: Counter[_Kind] = Counter()  # the same, by kind
        self._first_errors: dict[_Kind, str] = {}
        self._first_failure = 0.0
        self.reason = ""

    def check(self) -> None:
        """Raise `HopelessProvider` once tripped."""
        if self.reason:
            raise HopelessProvider(self.reason)

    def observe(self, reply: Reply) -> None:
        """Count one call."""
        if reply.outcome is Outcome.RATE_LIMITED:
            return
        self._calls += 1
        if reply.outcome in _WELL:
            self._answered += 1
            self._row.clear()
            self._alike.clear()
            self._first_errors.clear()
            return
        if not self._row:
            self._first_failure = time.monotonic()
        self._row[reply.outcome] += 1
        self._alike[_kind(reply)] += 1
        self._first_errors.setdefault(_kind(reply), reply.error)
        if not self.reason and self._is_hopeless(reply):
            self.reason = self._explain(reply)

    def _is_hopeless(self, reply: Reply) -> bool:
        if reply.outcome in HOPELESS:
            return not self._answered or self._alike[_kind(reply)] >= _HOPELESS_UNANSWERED
        if self._answered:
            return False
        if reply.outcome is Outcome.BAD_REQUEST or reply.raised:
            return self._alike[_kind(reply)] >= _ALIKE
        patience_over = time.monotonic() - self._first_failure >= _FAILED_FOR
        return self._row.total() >= _FAILED_IN_A_ROW and patience_over

    def _explain(self, reply: Reply) -> str:
        row = self._row.total()
        counted = ", ".join(f"{count} {outcome}" for outcome, count in self._row.most_common())
        earlier = self._calls - row
        before = f"; of the {earlier} before them {self._answered} were answered" if earlier else ""
        advice = {
            Outcome.AUTH: f"check {self._provider.key_variable or 'the key'}",
            Outcome.QUOTA: "raise the quota or wait for it, then run `synth resume`",
            Outcome.UNKNOWN_MODEL: "name a model the server has by --model-id, or check --base-url",
            Outcome.BAD_REQUEST: "see to what the message says, then run `synth resume`",
        }.get(reply.outcome, "check --base-url and whether the server runs, then run `synth resume`")
        if reply.raised:
            advice = "correct the code at that line, then run `synth resume`"
        first = self._first_errors[_kind(reply)]
        return (
            f"stopped calling {self._provider.name} ({self._model}): the last {row} of {self._calls}"
            f" calls failed ({counted}{before}). First: {first}. To mend it: {advice}"
        )


def _kind(reply: Reply) -> _Kind:
    """Failures that mean the same: hopeless, rejected, raised in the provider's own code."""
    return reply.outcome in HOPELESS, reply.outcome is Outcome.BAD_REQUEST, reply.raised
