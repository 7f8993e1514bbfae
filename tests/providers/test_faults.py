"""Both SDKs against a server that misbehaves in every way we know: the right outcome, the right number of
requests, within the deadline, and no part of the key in what is kept."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from asking import candidates
from loopback import Act, Loopback, answer, error

from synth_core.errors import HopelessProvider
from synth_core.providers import dispatch, retry
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Candidate, Outcome
from synth_core.settings import Settings

_MODEL = "gemini-2.5-flash"  # any name: the server is ours
_SECONDS = 2.0  # the deadline of the calls that are to meet it


def _quota(wire: str) -> Act:
    if wire == "gemini":
        details = [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]
        return error(wire, 429, "You exceeded your current quota", code="RESOURCE_EXHAUSTED", details=details)
    return error(wire, 429, "You exceeded your current quota", code="insufficient_quota")


def _bad_key(wire: str) -> Act:
    if wire == "gemini":
        details = [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
        return error(wire, 400, "API key not valid.", code="INVALID_ARGUMENT", details=details)
    return error(wire, 401, "Incorrect API key provided: sk-proj-****T4vB", code="invalid_api_key")


def _retry_info(wire: str) -> Act:
    return error(wire, 429, "slow down", details=[{"@type": "RetryInfo", "retryDelay": "0.05s"}])


def _a_minutes_quota(wire: str) -> Act:
    """Google's words are those of a spent day's quota; only the id tells."""
    details = [
        {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}, None]},
        {"@type": "RetryInfo", "retryDelay": "0.05s"},
    ]
    message = "You exceeded your current quota, please check your plan and billing details."
    return error(wire, 429, message, code="RESOURCE_EXHAUSTED", details=details)


def _finish(openai: str, gemini: str, text: str | None = "half") -> Callable[[str], Act]:
    return lambda wire: Act(body=answer(wire, text, finish=gemini if wire == "gemini" else openai))


def _changed(**changes: Any) -> Callable[[str], Act]:
    return lambda wire: Act(body={**answer(wire, "hello"), **changes})


def _empty_list(wire: str) -> Act:
    return Act(body={**answer(wire, "x"), "candidates" if wire == "gemini" else "choices": []})


def _hidden(**error: Any) -> Callable[[str], Act]:
    return lambda wire: Act(body={"error": error})


def _error(status: int, message: str = "trouble", **fields: Any) -> Callable[[str], Act]:
    return lambda wire: error(wire, status, message, **fields)


def _continued() -> Any:
    """An answer that the SDK would go on to ask for by itself."""
    body = answer("gemini", "half", finish="CONTINUATION")
    body["candidates"][0]["continuationToken"] = "bW9yZQ=="
    return body


def _halfway(**error: Any) -> Any:
    """OpenRouter's answer where the server behind it failed after it had begun."""
    body = answer("openai", "half", finish="error")
    body["choices"][0] |= {"error": error} if error else {}
    return body


def _well(wire: str) -> Any:
    return answer(wire, "hello")


FAULTS: dict[str, tuple[Outcome, Callable[[str], Act]]] = {
    "well": (Outcome.OK, lambda wire: Act(body=_well(wire))),
    "well, compressed": (
        Outcome.OK,
        lambda wire: Act(
            body=gzip.compress(json.dumps(_well(wire)).encode()), headers={"content-encoding": "gzip"}
        ),
    ),
    "no usage": (Outcome.OK, _changed(usage=None, usageMetadata=None)),
    "absurd usage": (
        Outcome.OK,
        _changed(
            usage={"prompt_tokens": -5, "completion_tokens": None}, usageMetadata={"promptTokenCount": -5}
        ),
    ),
    "usage of another type": (Outcome.OK, _changed(usage="many")),
    "bad key": (Outcome.AUTH, _bad_key),
    "401": (Outcome.AUTH, _error(401)),
    "403": (Outcome.AUTH, _error(403)),
    "402": (Outcome.QUOTA, _error(402)),
    "quota spent": (Outcome.QUOTA, _quota),
    "an hour's wait": (Outcome.QUOTA, _error(429, headers={"retry-after": "3600"})),
    "404 model": (Outcome.UNKNOWN_MODEL, _error(404)),
    "400": (Outcome.BAD_REQUEST, _error(400, "max_tokens is too large")),
    "413": (Outcome.BAD_REQUEST, _error(413)),
    "redirect": (Outcome.BAD_REQUEST, lambda wire: Act(302, b"", {"location": "/elsewhere"})),
    "429 with a header": (Outcome.RATE_LIMITED, _error(429, headers={"retry-after": "0.05"})),
    "429 with RetryInfo": (Outcome.RATE_LIMITED, _retry_info),
    "429 of a minute's quota": (Outcome.RATE_LIMITED, _a_minutes_quota),
    "429 with odd details": (
        Outcome.RATE_LIMITED,
        _error(429, details=[{"violations": None}, {"retryDelay": {"seconds": 1}}, 7]),
    ),
    "429 without a hint": (Outcome.RATE_LIMITED, _error(429)),
    "408": (Outcome.TRANSIENT, _error(408)),
    "500": (Outcome.TRANSIENT, _error(500)),
    "502 in HTML": (Outcome.TRANSIENT, lambda wire: Act(502, b"<html>", {"content-type": "text/html"})),
    "503": (Outcome.TRANSIENT, _error(503)),
    "529": (Outcome.TRANSIENT, _error(529)),
    "closed at once": (Outcome.TRANSIENT, lambda wire: Act(body=_well(wire), cut=0)),
    "closed in the head": (Outcome.TRANSIENT, lambda wire: Act(body=_well(wire), cut=20)),
    "closed in the body": (Outcome.TRANSIENT, lambda wire: Act(body=_well(wire), cut=150)),
    "stalls": (Outcome.TIMEOUT, lambda wire: Act(body=_well(wire), delay=60)),
    "drips": (Outcome.TIMEOUT, lambda wire: Act(body=_well(wire), drip=0.3)),
    "bad JSON": (Outcome.BAD_RESPONSE, lambda wire: Act(body=b'{"id": ')),
    "HTML for an answer": (
        Outcome.BAD_RESPONSE,
        lambda wire: Act(body=b"<html>", headers={"content-type": "text/html"}),
    ),
    "a flood of text": (Outcome.BAD_RESPONSE, lambda wire: Act(body=answer(wire, "x" * 5_000_000))),
    "no candidates": (Outcome.EMPTY, _empty_list),
    "an error called success": (Outcome.TRANSIENT, _hidden(code=503, message="overloaded")),
    "an unknown error called success": (Outcome.TRANSIENT, _hidden(code="odd", message=None)),
    "a message called success": (Outcome.TRANSIENT, lambda wire: Act(body={"error": "model is loading"})),
    "no credits called success": (Outcome.QUOTA, _hidden(code=402, message="Insufficient credits")),
    "a bad key called success": (Outcome.AUTH, _hidden(code="invalid_api_key", message="no")),
    "429 called success": (Outcome.RATE_LIMITED, _hidden(code="429", message="slow down")),
    "no error after all": (Outcome.OK, _changed(error=None)),
    "no text": (Outcome.EMPTY, lambda wire: Act(body=answer(wire, None))),
    "blank text": (Outcome.EMPTY, lambda wire: Act(body=answer(wire, " \n "))),
    "cut short": (Outcome.TRUNCATED, _finish("length", "MAX_TOKENS")),
    "cut short while thinking": (Outcome.TRUNCATED, _finish("length", "MAX_TOKENS", None)),
    "blocked": (Outcome.BLOCKED, _finish("content_filter", "SAFETY")),
}
_ONE_WIRE: dict[str, tuple[str, Outcome, Act]] = {
    "prompt blocked": ("gemini", Outcome.BLOCKED, Act(body={"promptFeedback": {"blockReason": "SAFETY"}})),
    "to be continued": ("gemini", Outcome.TRUNCATED, Act(body=_continued())),
    "a list": ("gemini", Outcome.EMPTY, Act(body=[1, 2])),
    "failed halfway": ("openai", Outcome.TRANSIENT, Act(body=_halfway(code=502, message="gone"))),
    "failed halfway, no more said": ("openai", Outcome.TRANSIENT, Act(body=_halfway())),
    "choices of nothing": ("openai", Outcome.BAD_RESPONSE, Act(body={**_well("openai"), "choices": [None]})),
    "not UTF-8": ("openai", Outcome.BAD_RESPONSE, Act(body=b'{"a": "\xff\xfe"}')),
    "plain completion": ("completions", Outcome.OK, Act(body=answer("completions", "hello"))),
    "plain completion cut": (
        "completions",
        Outcome.TRUNCATED,
        Act(body=answer("completions", "h", finish="length")),
    ),
}
_ROWS = [
    *((wire, *row, name) for name, row in FAULTS.items() for wire in ("openai", "gemini")),
    *((wire, outcome, lambda _, act=act: act, name) for name, (wire, outcome, act) in _ONE_WIRE.items()),
]
_TRIED_AGAIN = {
    Outcome.RATE_LIMITED,
    Outcome.TRANSIENT,
    Outcome.TIMEOUT,
    Outcome.BAD_RESPONSE,
    Outcome.EMPTY,
}
_HOPELESS = {Outcome.AUTH, Outcome.QUOTA, Outcome.UNKNOWN_MODEL}


@pytest.mark.parametrize(
    ("wire", "outcome", "fault"), [pytest.param(*row[:3], id=f"{row[0]}: {row[3]}") for row in _ROWS]
)
def test_fault(
    wire: str,
    outcome: Outcome,
    fault: Callable[[str], Act],
    make_settings: Callable[..., Settings],
    keys: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(dispatch, "_SALVAGE_PAUSE", 0.01)
    act = fault(wire)
    retries = 0 if outcome is Outcome.TIMEOUT else 1
    name, api = ("openai", "completions") if wire == "completions" else (wire, "chat")
    with Loopback(lambda _: act) as server:
        # Where the deadline is not what ends the call, a busy machine must not make it so.
        deadline = _SECONDS if outcome is Outcome.TIMEOUT else 30.0
        options = {"retries": retries, "timeout": deadline, "api": api, "model_id": _MODEL}
        settings = make_settings(name, server.base_url(wire), provider=options)
        started = time.monotonic()
        reached, kept = _complete(settings, name)
        seconds = time.monotonic() - started
    assert reached is outcome
    # A retry, and once more in the salvage round, where retries are wanted and may help.
    assert len(server.seen) == (3 if outcome in _TRIED_AGAIN and retries else 1)
    assert seconds < 30.0  # the server would stall for 60 and drip for 90
    for secret in keys.values():
        assert not any(secret[i : i + 6] in kept for i in range(len(secret) - 5))


def _complete(settings: Settings, provider: str) -> tuple[Outcome, str]:
    """How the one candidate ended, and all the text that is kept of it."""
    with Dispatcher(settings) as dispatcher:
        try:
            done: Candidate = dispatcher.complete(candidates(provider, 1))[0]
        except HopelessProvider as hopeless:
            counted = [outcome for outcome in _HOPELESS if f"1 {outcome}" in str(hopeless)]
            assert len(counted) == 1
            return counted[0], str(hopeless)
    assert done.completion is not None
    return done.completion.outcome, done.model_dump_json()


def test_connection_refused(make_settings: Callable[..., Settings]) -> None:
    with Loopback(lambda _: Act()) as server:
        address = server.base_url("openai")
    with Dispatcher(make_settings("openai", address)) as dispatcher:
        done = dispatcher.complete(candidates("openai", 1))[0]
    assert done.completion is not None
    assert done.completion.outcome is Outcome.TRANSIENT


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_the_words_of_an_error_called_success_are_kept(
    wire: str, make_settings: Callable[..., Settings]
) -> None:
    act = _hidden(code=402, message="Insufficient credits")(wire)
    with Loopback(lambda _: act) as server:
        outcome, said = _complete(make_settings(wire, server.base_url(wire)), wire)
    assert outcome is Outcome.QUOTA
    assert "Insufficient credits" in said
