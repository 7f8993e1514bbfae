"""When the breaker trips, and what it says, reply by reply."""

from __future__ import annotations

import pytest

from synth_core.errors import HopelessProvider
from synth_core.providers.breaker import Breaker
from synth_core.providers.call import Reply, failed
from synth_core.providers.table import find_provider
from synth_core.records import Outcome

_OK = Reply(outcome=Outcome.OK, text="x")
_LATE = failed(Outcome.TIMEOUT, "too late")
_REVOKED = failed(Outcome.AUTH, "the key was revoked")
_REJECTED = failed(Outcome.BAD_REQUEST, "no such field")


def _trips_at(*replies: Reply) -> int:
    """After how many of the replies the breaker has tripped; 0 for never."""
    breaker = Breaker(find_provider("openai"), "m")
    for number, reply in enumerate(replies, 1):
        breaker.observe(reply)
        if breaker.reason:
            return number
    return 0


def test_a_revoked_key_trips_it_whatever_fails_between() -> None:
    assert _trips_at(_OK, *(_REVOKED, _LATE) * 100) == 6


def test_an_answer_between_forgives() -> None:
    assert _trips_at(_OK, *(_REVOKED, _LATE, _REVOKED, _OK) * 100) == 0


def test_rejections_trip_it_whatever_fails_between() -> None:
    assert _trips_at(*(_LATE, _REJECTED) * 100) == 20


def test_it_quotes_the_first_failure_of_the_kind_that_tripped_it() -> None:
    breaker = Breaker(find_provider("openai"), "m")
    for reply in (_OK, _LATE, _REVOKED, _LATE, failed(Outcome.AUTH, "again"), _LATE, _REVOKED):
        breaker.observe(reply)
    with pytest.raises(HopelessProvider, match=r"3 timeout, 3 auth.*First error: the key was revoked"):
        breaker.check()
