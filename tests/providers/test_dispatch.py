"""Dispatch against a real server on this machine: what is asked, how often, and what it may cost."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from asking import candidates
from loopback import Act, Loopback, Seen, answer, error

from synth_core.errors import HopelessProvider, UsageError
from synth_core.providers import breaker, dispatch, retry
from synth_core.providers.answers import Answer, AnswerStore
from synth_core.providers.call import Reply, Request
from synth_core.providers.cost_ledger import read_totals
from synth_core.providers.dispatch import Dispatcher
from synth_core.providers.table import PROVIDERS, require_key
from synth_core.records import Candidate, Category, Outcome, Stage, Usage
from synth_core.settings import Settings

Make = Callable[..., Settings]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses of our own; what a server asks for stays as it is."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(dispatch, "_SALVAGE_PAUSE", 0.01)


def _well(seen: Seen) -> Act:
    return Act(body=answer(seen.wire, f"answer to {hash(seen.prompt)}"))


def _complete(settings: Settings, asked: list[Candidate], run_dir: Path | None = None) -> list[Candidate]:
    with Dispatcher(settings, run_dir=run_dir) as dispatcher:
        return dispatcher.complete(asked)


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_answers_come_in_order_with_what_they_cost(wire: str, make_settings: Make) -> None:
    with Loopback(_well) as server:
        asked = candidates(wire, 30)
        done = _complete(make_settings(wire, server.base_url(wire)), asked)
    assert len(server.seen) == 30
    for before, after in zip(asked, done, strict=True):
        assert before.prompt is not None
        assert after.completion is not None
        assert after.index == before.index
        assert after.completion.text == f"answer to {hash(before.prompt.text)}"
        assert after.completion.serving_model == "m-001"
        assert after.passed(Stage.LLM)
        usage = after.telemetry.usage
        assert (usage.input_tokens, usage.output_tokens, usage.thinking_tokens) == (100, 50, 7)
        assert usage.cost_usd is not None
        assert usage.cost_usd > 0
        assert after.telemetry.calls == 1


def test_dead_candidates_pass_untouched(make_settings: Make) -> None:
    from synth_core.records import Verdict

    dead = candidates("openai", 1)[0].judged(Verdict.fail(Stage.SAMPLE, Category.DUPLICATE, "held"))
    with Loopback(_well) as server:
        assert _complete(make_settings("openai", server.base_url("openai")), [dead]) == [dead]
    assert not server.seen


def test_many_threads_share_one_dispatcher(make_settings: Make) -> None:
    results: dict[int, list[Candidate]] = {}
    with Loopback(_well) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"concurrency": 4})
        with Dispatcher(settings) as dispatcher:

            def work(first: int) -> None:
                results[first] = dispatcher.complete(candidates("openai", 10, first=first))

            threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 60, 10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            snapshot = dispatcher.snapshot()
    assert sorted(c.index for done in results.values() for c in done if c.alive) == list(range(60))
    assert (snapshot.calls, snapshot.failed, snapshot.in_flight) == (60, 0, 0)
    assert snapshot.input_tokens == 6000


# --- paid for once ------------------------------------------------------------------------------------------


def test_an_answer_is_paid_for_once(make_settings: Make) -> None:
    with Loopback(_well) as server:
        settings = make_settings("openai", server.base_url("openai"))
        first = _complete(settings, candidates("openai", 12))
        second = _complete(settings, candidates("openai", 15))
    assert len(server.seen) == 15
    for one, two in zip(first, second, strict=False):
        assert two.telemetry.from_cache == ("llm",)
        assert two.telemetry.calls == 0
        # Caching must not change what Prefect's cache sees, so equal answers are equal candidates.
        assert one.content_digest() == two.content_digest()


def test_one_question_asked_by_many_at_once_is_paid_once(make_settings: Make) -> None:
    (one,) = candidates("openai", 1)
    twins = [one.model_copy(update={"index": index}) for index in range(5)]
    with Loopback(lambda seen: Act(body=answer(seen.wire, "x"), delay=0.3)) as server:
        done = _complete(make_settings("openai", server.base_url("openai")), twins)
    assert len(server.seen) == 1
    assert [candidate.completion and candidate.completion.text for candidate in done] == ["x"] * 5
    assert sorted(candidate.telemetry.calls for candidate in done) == [0, 0, 0, 0, 1]


def test_a_twin_asks_itself_where_the_first_got_no_answer(make_settings: Make) -> None:
    (one,) = candidates("openai", 1)
    with Loopback(lambda s: error(s.wire, 500, "down") if s.number == 0 else _well(s)) as server:
        done = _complete(make_settings("openai", server.base_url("openai")), [one, one])
    assert len(server.seen) == 2
    assert sorted(candidate.alive for candidate in done) == [False, True]


def test_a_raised_limit_asks_again_only_for_what_was_cut(make_settings: Make) -> None:
    def behave(seen: Seen) -> Act:
        cut = seen.body["max_tokens"] < 1000 and "Tanh" in seen.prompt
        return Act(body=answer(seen.wire, "half", finish="length") if cut else answer(seen.wire, "whole"))

    with Loopback(behave) as server:
        address = server.base_url("openai")
        short = make_settings("openai", address, provider={"max_tokens": 500})
        long = make_settings("openai", address, provider={"max_tokens": 2000})
        _complete(short, candidates("openai", 10))
        done = _complete(long, candidates("openai", 10))
    assert len(server.seen) == 10 + 8  # of five kinds of prompt, four hold Tanh
    assert all(c.completion and c.completion.outcome is Outcome.OK for c in done)


def test_refusals_are_not_kept(make_settings: Make) -> None:
    with Loopback(lambda seen: Act(body=answer(seen.wire, "I'm sorry, I can't help with that."))) as server:
        settings = make_settings("openai", server.base_url("openai"))
        for _ in range(2):
            _complete(settings, candidates("openai", 1))
    assert len(server.seen) == 2


def test_other_questions_are_other_answers(make_settings: Make) -> None:
    """Sample number, temperature, model and server are part of what was asked."""
    (candidate,) = candidates("openai", 1)

    def changed(**values: object) -> Candidate:
        specification = candidate.specification.model_copy(update=values)
        return candidate.model_copy(update={"specification": specification})

    with Loopback(_well) as server:
        settings = make_settings("openai", server.base_url("openai"))
        _complete(settings, [candidate, changed(sample=1), changed(temperature=0.9)])
        other = make_settings("openai", server.base_url("openai"), provider={"model_id": "other"})
        _complete(other, [candidate])
    assert len(server.seen) == 4


def test_the_store_lists_and_forgets(make_settings: Make) -> None:
    with Loopback(_well) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"model_id": "gpt-4.1"})
        _complete(settings, candidates("openai", 5))
        store = AnswerStore(settings.cache_dir)
        (held,) = store.list()
        assert (held.provider, held.model, held.answers) == ("openai", "gpt-4.1", 5)
        assert store.prune(older_than_s=3600) == 0
        assert store.prune(model="another") == 0
        assert store.prune(model="gpt-4.1") == 5
        assert store.list() == []
        store.close()


def _filled(folder: Path, count: int) -> AnswerStore:
    """A store of answers that do not compress."""
    store, rng = AnswerStore(folder), random.Random(3)
    for number in range(count):
        text = rng.randbytes(8000).hex()
        answered = Answer(text=text, serving_model="m", finish_reason="stop", usage=Usage())
        store.put(f"{number:06}", answered, provider="openai", model="m", signature="s")
    return store


def test_pruning_gives_the_room_back(tmp_path: Path) -> None:
    store = _filled(tmp_path, 500)
    path = tmp_path / "answers.sqlite"
    assert store.prune(model="m") == 500
    store.close()
    assert path.stat().st_size < 100_000


def test_a_run_writes_while_another_prunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of before, which cannot shrink in pieces, is pruned as well."""
    _filled(tmp_path, 500).close()
    held = sqlite3.connect(tmp_path / "answers.sqlite", isolation_level=None)
    held.execute("PRAGMA auto_vacuum=NONE")
    held.execute("VACUUM")
    held.close()
    pruner, writer = AnswerStore(tmp_path), AnswerStore(tmp_path)
    seen: list[int] = []
    rest = time.sleep

    def write_in_the_pause(seconds: float) -> None:
        rest(seconds)
        new = Answer(text="x", serving_model="m", finish_reason="stop", usage=Usage())
        writer.put(f"new {len(seen)}", new, provider="o", model="m2", signature="s")
        seen.append(sum(row.answers for row in writer.list() if row.model == "m"))

    monkeypatch.setattr("synth_core.providers.answers.time.sleep", write_in_the_pause)
    assert pruner.prune(model="m") == 500
    assert seen[:5] == [400, 300, 200, 100, 0]  # never all of it under one lock
    assert [row.model for row in writer.list()] == ["m2"]
    pruner.close()
    writer.close()


# --- retries and the breaker --------------------------------------------------------------------------------


def test_the_servers_hint_is_honoured(make_settings: Make) -> None:
    def behave(seen: Seen) -> Act:
        if seen.number == 0:
            return error(seen.wire, 429, "slow", headers={"retry-after": "1"})
        return _well(seen)

    with Loopback(behave) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"retries": 1})
        (done,) = _complete(settings, candidates("openai", 1))
    assert done.alive
    assert done.telemetry.calls == 2
    assert server.seen[1].at - server.seen[0].at >= 1.0


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_hint_slows_every_call_whatever_the_status(status: int, make_settings: Make) -> None:
    def behave(seen: Seen) -> Act:
        if seen.number == 0:
            return error(seen.wire, status, "restarting", headers={"retry-after": "1"})
        return _well(seen)

    with Loopback(behave) as server:
        options = {"retries": 1, "concurrency": 1}
        settings = make_settings("openai", server.base_url("openai"), provider=options)
        done = _complete(settings, candidates("openai", 4))
    assert all(candidate.alive for candidate in done)
    first, *others = sorted(seen.at for seen in server.seen)
    assert len(others) == 4
    assert min(others) - first >= 1.0


def test_the_salvage_round_saves_what_a_passing_trouble_outlasted(make_settings: Make) -> None:
    def behave(seen: Seen) -> Act:
        return error(seen.wire, 500, "down") if seen.number < 2 else _well(seen)

    with Loopback(behave) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"retries": 1})
        with Dispatcher(settings) as dispatcher:
            (done,) = dispatcher.complete(candidates("openai", 1))
            assert dispatcher.snapshot().answered == 1
    assert done.alive
    assert done.telemetry.calls == 3
    assert [v.stage for v in done.verdicts] == [Stage.PROMPT, Stage.LLM]


def test_an_outage_is_waited_out_and_costs_nobody_an_attempt(make_settings: Make) -> None:
    def behave(seen: Seen) -> Act:
        return error(seen.wire, 503, "down") if 6 <= seen.number < 60 and len(down) < 45 else _well(seen)

    down: list[int] = []

    def counted(seen: Seen) -> Act:
        act = behave(seen)
        if act.status == 503:
            down.append(seen.number)
        return act

    with Loopback(counted) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"retries": 1})
        done = _complete(settings, candidates("openai", 26))
    assert len(down) == 45  # all twenty, twice, then one at a time
    assert all(candidate.alive for candidate in done)


def test_an_outage_that_lasts_ends_the_run_and_no_candidate(make_settings: Make) -> None:
    lasts = True

    def behave(seen: Seen) -> Act:
        return error(seen.wire, 503, "down for good") if lasts and seen.number >= 6 else _well(seen)

    with Loopback(behave) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"retries": 1})
        with pytest.raises(
            HopelessProvider, match=r"no longer answers: 20 candidates.*down for good.*resume"
        ):
            _complete(settings, candidates("openai", 26))
        assert len(server.seen) == 6 + 2 * 20 + 8
        lasts = False
        done = _complete(settings, candidates("openai", 26))
    assert all(candidate.alive for candidate in done)
    assert len(server.seen) == 6 + 2 * 20 + 8 + 20  # what was answered was kept


def test_a_budget_that_is_spent_ends_the_waiting_for_a_server(make_settings: Make) -> None:
    def behave(seen: Seen) -> Act:
        return _well(seen) if seen.number < 6 else error(seen.wire, 503, "down")

    with Loopback(behave) as server:
        settings = make_settings(
            "openai", server.base_url("openai"), provider={"retries": 1}, budget={"calls": 48}
        )
        done = _complete(settings, candidates("openai", 26))
    assert len(server.seen) == 48
    assert [c.completion.outcome for c in done if c.completion].count(Outcome.OVER_BUDGET) == 20


def test_questions_that_always_fail_are_no_outage_while_others_are_answered(make_settings: Make) -> None:
    def behave(seen: Seen) -> Act:
        return error(seen.wire, 500, "chokes") if "Tanh, Tanh, Tanh" in seen.prompt else _well(seen)

    with Loopback(behave) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"retries": 1})
        with Dispatcher(settings) as dispatcher:
            done = dispatcher.complete(candidates("openai", 10))
    assert [c.index % 5 >= 3 for c in done] == [not c.alive for c in done]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_refused_temperature_is_left_out_from_then_on(concurrency: int, make_settings: Make) -> None:
    def behave(seen: Seen) -> Act:
        if "temperature" not in seen.body:
            return _well(seen)
        body = {"error": {"message": "unsupported", "code": "unsupported_value", "param": "temperature"}}
        return Act(400, body)

    with Loopback(behave) as server:
        options = {"retries": 1, "concurrency": concurrency}
        settings = make_settings("openai", server.base_url("openai"), provider=options)
        done = _complete(settings, candidates("openai", 4))
    assert all(candidate.alive for candidate in done)
    assert len(server.seen) <= 4 + concurrency  # only those in flight meet the refusal


@pytest.mark.parametrize("status", [401, 404])
def test_the_breaker_stops_a_hopeless_run_at_once(status: int, make_settings: Make) -> None:
    with Loopback(lambda seen: error(seen.wire, status, "no such thing")) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"retries": 4})
        with pytest.raises(HopelessProvider, match=r"of \d+ calls failed .*no such thing.*To fix it"):
            _complete(settings, candidates("openai", 300))
    assert len(server.seen) <= 8


def test_a_stalled_call_does_not_hide_why_the_run_stops(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "_GRACE", 0.2)

    def behave(seen: Seen) -> Act:
        stalls = Act(body=answer(seen.wire, "late"), delay=60)
        return stalls if seen.number < 2 else error(seen.wire, 401, "no")

    with Loopback(behave) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"timeout": 30.0})
        started = time.monotonic()
        with pytest.raises(HopelessProvider):
            _complete(settings, candidates("openai", 40))
    assert time.monotonic() - started < 25  # the stalled calls would take 30
    assert "never retrieved" not in caplog.text


def test_the_breaker_forgives_one_hopeless_answer_among_good_ones(make_settings: Make) -> None:
    with Loopback(lambda s: error(s.wire, 401, "odd") if s.number == 20 else _well(s)) as server:
        done = _complete(make_settings("openai", server.base_url("openai")), candidates("openai", 40))
    failed = [candidate.failure for candidate in done if candidate.failure]
    assert [(verdict.stage, verdict.category) for verdict in failed] == [(Stage.LLM, Category.PROVIDER_ERROR)]


def test_answers_received_before_the_breaker_trips_are_kept(make_settings: Make) -> None:
    with Loopback(lambda s: _well(s) if s.number < 10 else error(s.wire, 402, "no money")) as server:
        settings = make_settings("openai", server.base_url("openai"))
        with pytest.raises(
            HopelessProvider,
            match=r"3 of 13 calls failed \(3 quota; 10 of the 10 earlier calls were answered\)",
        ):
            _complete(settings, candidates("openai", 50))
    store = AnswerStore(settings.cache_dir)
    assert store.list()[0].answers == 10
    store.close()


def test_a_server_that_never_answers_trips_the_breaker(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "_FAILED_FOR", 0.5)
    with Loopback(_well) as server:
        address = server.base_url("openai")
    settings = make_settings("openai", address, provider={"retries": 50})
    with pytest.raises(HopelessProvider, match="check --base-url and that the server runs"):
        _complete(settings, candidates("openai", 30))


def _reply(outcome: Outcome, message: str = "", **fields: Any) -> Reply:
    return Reply(outcome=outcome, error=message, **fields)


def test_the_breaker_counts_only_what_it_names() -> None:
    """Rejections trip it by themselves, not by the failures of other kinds among them."""
    watched = breaker.Breaker(PROVIDERS["openai"], "m")
    for _ in range(9):
        watched.observe(_reply(Outcome.TRANSIENT, "down"))
    watched.observe(_reply(Outcome.BAD_REQUEST, "first rejection"))
    assert not watched.reason
    for _ in range(5):
        watched.observe(_reply(Outcome.RATE_LIMITED, "slow"))
    for _ in range(9):
        watched.observe(_reply(Outcome.BAD_REQUEST, "rejected"))
    assert "the last 19 of 19 calls failed (10 bad_request, 9 transient)" in watched.reason
    assert "First error: first rejection" in watched.reason


# --- budgets and the ledger ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "most"),
    [({"calls": 7}, 7), ({"tokens": 30_000}, 190), ({"usd": 0.002}, 30), ({"wall_s": 0.0}, 40)],
)
def test_a_budget_is_never_exceeded(
    budget: dict[str, float], most: int, make_settings: Make, tmp_path: Path
) -> None:
    with Loopback(_well) as server:
        options = {"model_id": "gpt-4.1-mini", "max_tokens": 200}
        settings = make_settings("openai", server.base_url("openai"), provider=options, budget=budget)
        done = _complete(settings, candidates("openai", 40), tmp_path / "run")
    totals = read_totals(tmp_path / "run")
    assert totals.calls == len(server.seen)
    assert 1 <= len(server.seen) <= most
    assert totals.cost_usd <= budget.get("usd", 1.0)
    assert totals.spending().tokens <= budget.get("tokens", 10**9)
    over = [c for c in done if c.completion and c.completion.outcome is Outcome.OVER_BUDGET]
    assert len(over) == 40 - len(server.seen)
    assert all(c.failure and "budget" in c.failure.detail for c in over)


def test_wall_time_ends_the_asking(make_settings: Make) -> None:
    with Loopback(lambda seen: Act(body=answer(seen.wire, "x"), delay=0.5)) as server:
        options = {"concurrency": 2}
        settings = make_settings(
            "openai", server.base_url("openai"), provider=options, budget={"wall_s": 2.0}
        )
        with Dispatcher(settings) as dispatcher:
            done = dispatcher.complete(candidates("openai", 40))
            assert dispatcher.budget_spent == "the budget of 2 s of wall time is spent"
    assert len(server.seen) <= 10
    assert sum(candidate.alive for candidate in done) == len(server.seen)


@pytest.mark.parametrize(("budget", "rpm"), [({"calls": 2}, 600), ({"wall_s": 1.0}, 1)])
def test_nobody_queues_for_a_budget_that_is_spent(
    budget: dict[str, float], rpm: int, make_settings: Make
) -> None:
    """Else the queue drains at the pace of calls that are never made."""
    with Loopback(_well) as server:
        options = {"concurrency": 1, "rpm": rpm}
        settings = make_settings("openai", server.base_url("openai"), provider=options, budget=budget)
        with Dispatcher(settings) as dispatcher:
            done = dispatcher.complete(candidates("openai", 6))
            (lane,) = dispatcher._lanes.paid
            assert lane.pace._accepted == len(server.seen) == sum(candidate.alive for candidate in done)
    assert len(server.seen) == budget.get("calls", 1)


def test_a_resumed_run_goes_on_counting(make_settings: Make, tmp_path: Path) -> None:
    with Loopback(_well) as server:
        settings = make_settings("openai", server.base_url("openai"), budget={"calls": 10})
        _complete(settings, candidates("openai", 6), tmp_path / "run")
        _complete(settings, candidates("openai", 20), tmp_path / "run")
    assert len(server.seen) == 10


def test_a_resumed_run_goes_on_counting_the_time_after_its_last_call(
    make_settings: Make, tmp_path: Path
) -> None:
    with Loopback(_well) as server:
        settings = make_settings("openai", server.base_url("openai"), budget={"wall_s": 0.5})
        with Dispatcher(settings, run_dir=tmp_path / "run") as dispatcher:
            dispatcher.complete(candidates("openai", 1))
            time.sleep(0.5)  # validation of what was answered
        (late,) = _complete(settings, candidates("openai", 1, first=1), tmp_path / "run")
    assert late.failure is not None
    assert "the budget of 0.5 s of wall time is spent" in late.failure.detail


_KILLED = """
import os, signal, sys, time
from pathlib import Path
from asking import candidates
from synth_core.providers import cost_ledger
from synth_core.providers.dispatch import Dispatcher
from synth_core.settings import Settings

cost_ledger._NOTE_SECONDS = 0.1
dispatcher = Dispatcher(Settings(cache_dir=sys.argv[1], output_dir=sys.argv[1]), run_dir=Path(sys.argv[1]))
dispatcher.admit(candidates("constructive", 40))
time.sleep(0.5)
dispatcher.admit(candidates("constructive", 7))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_session_counts_its_time_and_the_programs_written_here(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path], env=environment)
    assert done.returncode == -signal.SIGKILL
    totals = read_totals(tmp_path)
    assert 40 <= totals.spending().calls <= 47
    assert totals.calls == 0  # of a provider
    assert 0.3 < totals.spending().wall_s < 2


def test_a_ledger_from_before_sessions_noted_their_time_is_read(make_settings: Make, tmp_path: Path) -> None:
    with Loopback(_well) as server:
        settings = make_settings("openai", server.base_url("openai"))
        _complete(settings, candidates("openai", 3), tmp_path / "run")
    ledger = tmp_path / "run" / "calls.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(line for line in lines if b"written" not in line))
    totals = read_totals(tmp_path / "run")
    assert (totals.spending().calls, totals.lost) == (3, 0)
    assert totals.spending().wall_s > 0


@pytest.mark.parametrize("budget", [{"usd": 0.004}, {"tokens": 10_000}])
def test_what_a_call_never_said_counts_at_its_worst_case(
    budget: dict[str, float], make_settings: Make, tmp_path: Path
) -> None:
    """A server that answers too late, or leaves out what it used, may bill the call all the same."""
    silent = {k: v for k, v in answer("openai", "fine").items() if k != "usage"}
    for fault, name in ((Act(body=silent), "silent"), (Act(body=silent, delay=60), "late")):

        def always(_: Seen, act: Act = fault) -> Act:
            return act

        with Loopback(always) as server:
            options = {"model_id": "gpt-4.1-mini", "max_tokens": 1000, "timeout": 0.5, "retries": 20}
            settings = make_settings("openai", server.base_url("openai"), provider=options, budget=budget)
            _complete(settings, candidates("openai", 20), tmp_path / name)
            asked = len(server.seen)
            assert 1 <= asked <= 10
            assert read_totals(tmp_path / name).spending().tokens >= 1000 * asked
            _complete(settings, candidates("openai", 40)[20:], tmp_path / name)  # a resumed run knows it too
            assert len(server.seen) == asked


def test_an_unpriced_model_is_not_free(make_settings: Make, tmp_path: Path) -> None:
    with Loopback(_well) as server:
        address = server.base_url("openai")
        options = {"model_id": "nobody-knows-this"}
        settings = make_settings("openai", address, provider=options)
        with Dispatcher(settings, run_dir=tmp_path / "run") as dispatcher:
            assert dispatcher.snapshot().cost_usd == 0.0
            (done,) = dispatcher.complete(candidates("openai", 1))
            assert dispatcher.snapshot().cost_usd is None
        assert done.telemetry.usage.cost_usd is None
        assert read_totals(tmp_path / "run").unpriced == 1
        limited = make_settings("openai", address, provider=options, budget={"usd": 1.0})
        with pytest.raises(UsageError, match=r"nobody-knows-this.*not known"):
            _complete(limited, candidates("openai", 1))


def test_the_ledger_counts_failed_attempts(make_settings: Make, tmp_path: Path) -> None:
    def behave(seen: Seen) -> Act:
        return error(seen.wire, 500, "down") if seen.number % 3 == 0 else _well(seen)

    with Loopback(behave) as server:
        settings = make_settings("openai", server.base_url("openai"), provider={"retries": 5})
        done = _complete(settings, candidates("openai", 20), tmp_path / "run")
    totals = read_totals(tmp_path / "run")
    assert totals.calls == len(server.seen) == sum(c.telemetry.calls for c in done)
    assert totals.outcomes == {"ok": 20, "transient": len(server.seen) - 20}
    assert totals.lost == 0
    assert totals.cost_usd == pytest.approx(sum(c.telemetry.usage.cost_usd or 0 for c in done))


def test_a_torn_ledger_line_is_passed_over(make_settings: Make, tmp_path: Path) -> None:
    with Loopback(_well) as server:
        settings = make_settings("openai", server.base_url("openai"))
        _complete(settings, candidates("openai", 3), tmp_path / "run")
    ledger = tmp_path / "run" / "calls.jsonl"
    *lines, last, _ = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines) + last[:20])  # killed while the last answer was written
    totals = read_totals(tmp_path / "run")
    assert (totals.calls, totals.lost, totals.outcomes["ok"]) == (3, 1, 2)
    assert totals.spending().tokens > 2 * 157 + 4096  # the lost call counts at its worst


@pytest.mark.parametrize("left", [1, 20, -1])
def test_a_torn_ledger_line_costs_no_other_line(left: int, make_settings: Make, tmp_path: Path) -> None:
    with Loopback(_well) as server:
        settings = make_settings("openai", server.base_url("openai"))
        _complete(settings, candidates("openai", 3), tmp_path / "run")
        ledger = tmp_path / "run" / "calls.jsonl"
        *lines, last, _ = ledger.read_bytes().splitlines(keepends=True)
        torn = b"".join(lines) + last[:left]
        ledger.write_bytes(torn)
        _complete(settings, candidates("openai", 5), tmp_path / "run")
    assert ledger.read_bytes().startswith(torn + b"\n{")
    totals = read_totals(tmp_path / "run")
    whole = left == -1  # then only the end of the line was missing
    assert (totals.calls, totals.lost, totals.outcomes["ok"]) == (5, 0 if whole else 1, 5 if whole else 4)


_FULL = """
import resource, sys
from pathlib import Path
from synth_core.providers.budget import Spending
from synth_core.providers.cost_ledger import CallLedger

ledger = CallLedger(Path(sys.argv[1]))
ledger.start("a", "openai", "m", Spending())
resource.setrlimit(resource.RLIMIT_FSIZE, ((Path(sys.argv[1]) / "calls.jsonl").stat().st_size + 20,) * 2)
ledger.start("b", "openai", "m", Spending())
"""


def test_a_ledger_line_that_did_not_fit_ends_the_run(tmp_path: Path) -> None:
    """Else the next line would be glued to it."""
    done = subprocess.run([sys.executable, "-c", _FULL, tmp_path], capture_output=True, text=True)
    assert "No space left on device: 'calls.jsonl'" in done.stderr
    assert read_totals(tmp_path).calls == 1


# --- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_no_part_of_a_key_is_kept_anywhere(
    wire: str, make_settings: Make, tmp_path: Path, keys: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = keys[wire]
    echo = f"bad key {secret[:9]}… or {secret[-8:]} in https://x/?key={secret}"
    text = ""
    with Loopback(lambda s: _well(s) if s.number < 3 else error(s.wire, 401, echo)) as server:
        settings = make_settings(wire, server.base_url(wire), provider={"concurrency": 1})
        with Dispatcher(settings, run_dir=tmp_path / "run") as dispatcher:
            text += repr(dispatcher.complete(candidates(wire, 3))) + repr(vars(dispatcher))
            try:
                dispatcher.complete(candidates(wire, 30, first=3))
            except HopelessProvider as hopeless:
                text += repr(hopeless) + str(hopeless.__cause__)
    assert any(secret in value for value in server.seen[0].headers.values())  # it was really sent
    text += settings.model_dump_json() + caplog.text
    text += "".join(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file())
    parts = {secret[i : i + 6] for i in range(len(secret) - 5)}
    assert [part for part in parts if part in text] == []


def test_a_missing_key_is_named(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(UsageError, match="GEMINI_API_KEY"):
        require_key(make_settings("gemini", ""))


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("claude", "unknown provider 'claude'; known: constructive"),
        ("local", "--base-url"),
        ("os:nothing", "os:nothing"),
        ("os:", "os:"),
        (".os:path", r"\.os:path"),
    ],
)
def test_bad_provider_settings_are_one_line(provider: str, message: str, make_settings: Make) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        require_key(make_settings(provider, ""))
    assert "\n" not in str(caught.value)


def test_an_unreadable_ca_bundle_is_the_users_mistake(make_settings: Make) -> None:
    settings = make_settings("openai", "https://127.0.0.1:9", provider={"ca_bundle": "/nowhere.pem"})
    with pytest.raises(UsageError, match=r"/nowhere\.pem"):
        _complete(settings, candidates("openai", 1))


# --- a provider of the user's own ---------------------------------------------------------------------------


async def own(request: Request) -> Reply:
    """What `--model-name package.module:function` names."""
    if "Tanh, Tanh" in request.text:
        raise RuntimeError("a bug of the user's")
    usage = Usage(input_tokens=len(request.text), output_tokens=3)
    return Reply(outcome=Outcome.OK, text=" ".join(request.operators), usage=usage)


def test_a_provider_of_the_users_own(make_settings: Make) -> None:
    name = f"{__name__}:own"
    settings = make_settings(name, "")
    require_key(settings)
    done = _complete(settings, candidates(name, 5))
    assert [c.alive for c in done] == [True, True, False, False, False]
    assert done[0].completion is not None
    assert done[0].completion.text == "Conv2d ReLU"
    assert done[3].failure is not None
    assert "RuntimeError: a bug of the user's" in done[3].failure.detail


def _module(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's on the path; the name of its function `ask` as a provider."""
    name = f"users_{folder.name}"
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    return f"{name}:ask"


_OWN = "from synth_core.providers.call import Reply\nfrom synth_core.records import Outcome\n"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("async def ask(request):\n    return request.nothing\n", r"\.py:4: AttributeError: .*'nothing'"),
        ("async def ask():\n    pass\n", r"\.py:3: TypeError: .*takes 0 positional"),
        ("def ask(request):\n    return Reply(outcome=Outcome.OK)\n", r"\.py:3: TypeError: .*await"),
        ("import sys\nasync def ask(request):\n    sys.exit(3)\n", r"\.py:5: SystemExit: 3"),
        ("import json\nasync def ask(request):\n    json.loads('{')\n", r"\.py:5: JSONDecodeError"),
        ("async def ask(request):\n    return 'text'\n", "returned str, not a Reply"),
        ("async def ask(request):\n    return Reply(outcome='ok')\n", "whose outcome is 'ok'"),
        ("async def ask(request):\n    return Reply(outcome=Outcome.OK, text=None)\n", "whose text is None"),
    ],
    ids=range(8),
)
def test_a_function_that_always_fails_stops_the_run(
    body: str, says: str, make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _module(tmp_path, _OWN + body, monkeypatch)
    settings = make_settings(name, "", provider={"retries": 4})
    with pytest.raises(HopelessProvider, match=rf"calls failed \(\d\d bad_.*First error: .*{says}"):
        _complete(settings, candidates(name, 300), tmp_path / "run")
    assert read_totals(tmp_path / "run").calls < 40


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def (", "SyntaxError"),
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(1)", "SystemExit"),
        ("ask = 3", "not a function"),
        ("", "no attribute 'ask'"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_one_line(
    text: str, says: str, make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _module(tmp_path, text, monkeypatch)
    with pytest.raises(UsageError, match=says) as caught:
        require_key(make_settings(name, ""))
    assert "\n" not in str(caught.value)


def test_the_constructive_provider_goes_through_the_same_door(make_settings: Make, tmp_path: Path) -> None:
    asked = candidates("constructive", 2)
    settings = make_settings("constructive", "", provider={"timeout": 120.0}, budget={"calls": 2})
    done = _complete(settings, asked, tmp_path / "run")
    again = _complete(settings, asked)
    (resumed,) = _complete(settings, candidates("constructive", 1, first=2), tmp_path / "run")
    assert resumed.failure is not None
    assert "the budget of 2 calls is spent" in resumed.failure.detail
    assert all(candidate.alive for candidate in done)
    assert [c.completion for c in done] == [c.completion for c in again]
    assert done[0].telemetry.calls == 0
    assert done[0].telemetry.usage.cost_usd == 0.0


def test_who_asks_while_it_closes_is_given_up(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a task run would wait for ever, and the interrupted run with it."""
    with Loopback(_well) as server:
        dispatcher = Dispatcher(make_settings("openai", server.base_url("openai")))
        closing = threading.Event()

        async def close_slowly() -> None:
            closing.set()
            await asyncio.sleep(0.5)

        monkeypatch.setattr(dispatcher._lanes, "close", close_slowly)
        thread = threading.Thread(target=dispatcher.close)
        thread.start()
        closing.wait()
        with pytest.raises(CancelledError):
            dispatcher.complete(candidates("openai", 1))
        thread.join()
    assert not server.seen
