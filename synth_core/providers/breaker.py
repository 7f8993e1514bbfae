"""A circuit breaker: it stops a run if every further call would fail, and explains why."""

from __future__ import annotations

import time
from collections import Counter

from synth_core.errors import HopelessProvider
from synth_core.providers.call import ANSWERED, HOPELESS, Reply
from synth_core.providers.provider import Provider
from synth_core.records import Outcome

# A gateway may answer one 401 by mistake. Three of them without an answer between are no mistake.
_HOPELESS_IN_A_ROW = 3
# Without any answer so far: this many failures over at least this many seconds, …
_FAILED_IN_A_ROW, _FAILED_FOR = 20, 20.0
# … or this many rejected requests, or this many exceptions in the provider's own code.
_SAME_KIND = 10
_Kind = tuple[bool, bool, bool]
_GOOD = ANSWERED - {Outcome.EMPTY}  # a broken server may send empty answers for ever


class Breaker:
    """Decides when to stop calling a provider.

    Before the first answer it trips at the first hopeless outcome (key, quota, model), at 10 rejected
    requests, at 10 exceptions of the provider's own code, or at 20 failures over at least 20 s. After the
    first answer it trips only at the third hopeless outcome since the last answer. Rate limits never count.
    Only an answer resets the counts; a failure of another kind does not.
    """

    def __init__(self, provider: Provider, model: str) -> None:
        self._provider = provider
        self._model = model
        self._calls = self._answered = 0  # without calls that a rate limit refused
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
        if reply.outcome in _GOOD:
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
            return not self._answered or self._alike[_kind(reply)] >= _HOPELESS_IN_A_ROW
        if self._answered:
            return False
        if reply.outcome is Outcome.BAD_REQUEST or reply.raised:
            return self._alike[_kind(reply)] >= _SAME_KIND
        patience_over = time.monotonic() - self._first_failure >= _FAILED_FOR
        return self._row.total() >= _FAILED_IN_A_ROW and patience_over

    def _explain(self, reply: Reply) -> str:
        row = self._row.total()
        counted = ", ".join(f"{count} {outcome}" for outcome, count in self._row.most_common())
        earlier = self._calls - row
        before = f"; {self._answered} of the {earlier} earlier calls were answered" if earlier else ""
        advice = {
            Outcome.AUTH: f"check {self._provider.key_variable or 'the key'}",
            Outcome.QUOTA: "raise the quota or wait for it, then run `synth resume`",
            Outcome.UNKNOWN_MODEL: "name a model that the server has by --model-id, or check --base-url",
            Outcome.BAD_REQUEST: "fix what the message says, then run `synth resume`",
        }.get(reply.outcome, "check --base-url and that the server runs, then run `synth resume`")
        if reply.raised:
            advice = "correct the code at that line, then run `synth resume`"
        first = self._first_errors[_kind(reply)]
        return (
            f"stopped calling {self._provider.name} ({self._model}): the last {row} of {self._calls}"
            f" calls failed ({counted}{before}). First error: {first}. To fix it: {advice}"
        )


def _kind(reply: Reply) -> _Kind:
    """The kind of a failure: whether it is hopeless, a rejected request, or raised by the provider's code."""
    return reply.outcome in HOPELESS, reply.outcome is Outcome.BAD_REQUEST, reply.raised
