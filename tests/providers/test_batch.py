"""Batch mode against a server with both providers' job interfaces, over a real socket with both SDKs."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from asking import KEYS, candidates
from loopback import Act, Loopback, Seen, answer, error

from flows.cli.without_prefect import steps
from synth_core.errors import EnvironmentFault, HopelessProvider, UsageError
from synth_core.form import write_program
from synth_core.providers import batch
from synth_core.providers.answers import AnswerStore
from synth_core.providers.cost_ledger import read_totals
from synth_core.providers.dispatch import Dispatcher
from synth_core.providers.table import require_key
from synth_core.records import Candidate, Outcome
from synth_core.settings import Settings

Make = Callable[..., Settings]
Rows = list[tuple[str, str]]  # (id, prompt)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_FIRST_POLL", 0.02)


@dataclass
class JobServer:
    """Keeps jobs as both providers do. `result` makes a row's answer text; None leaves the row out."""

    wire: str
    result: Callable[[int, str], str | None] = lambda number, prompt: "text of " + prompt[-12:]
    polls_needed: int = 1
    answers_submission: bool = True
    jobs: list[tuple[str, Rows]] = field(default_factory=list)  # (label, rows)
    reverse: bool = False
    fails: str = ""  # what a job that fails whole says
    _polls: int = 0
    _file: Rows = field(default_factory=list)

    def __call__(self, seen: Seen) -> Act:
        path = seen.path.partition("?")[0]
        if self.wire == "openai":
            return self._openai(seen, path)
        if path.endswith(":batchGenerateContent"):
            body = seen.body["batch"]
            rows = [
                (row["metadata"]["key"], row["request"]["contents"][0]["parts"][0]["text"])
                for row in body["inputConfig"]["requests"]["requests"]
            ]
            return self._submit(body["displayName"], rows)
        if path.endswith("/batches"):
            return Act(body={"operations": [self._state(number) for number in range(len(self.jobs))]})
        return Act(body=self._polled(int(path.rpartition("-")[2])))

    def _openai(self, seen: Seen, path: str) -> Act:
        if path == "/v1/files":
            lines = re.findall(rb'^{"custom_id".*$', seen.raw, re.MULTILINE)
            bodies = [json.loads(line) for line in lines]
            self._file = [(row["custom_id"], row["body"]["messages"][-1]["content"]) for row in bodies]
            return Act(body={"id": "file-up", "object": "file"})
        if path.startswith("/v1/files/"):
            number = int(path.split("-")[1].partition("/")[0])
            lines = [
                json.dumps(
                    {"custom_id": row, "response": {"status_code": 200, "body": answer("openai", text)}}
                )
                for row, text in self._results(number)
            ]
            return Act(body="\n".join(lines).encode(), headers={"content-type": "application/jsonl"})
        if path == "/v1/batches" and seen.method == "POST":
            return self._submit(seen.body["metadata"]["label"], self._file)
        if path == "/v1/batches":
            data = [self._state(number) for number in range(len(self.jobs))]
            return Act(body={"object": "list", "data": data, "has_more": False})
        return Act(body=self._polled(int(path.rpartition("-")[2])))

    def _submit(self, label: str, rows: Rows) -> Act:
        self.jobs.append((label, rows))
        self._polls = 0
        return Act(body=self._state(len(self.jobs) - 1), cut=None if self.answers_submission else 0)

    def _polled(self, number: int) -> dict[str, Any]:
        self._polls += 1
        return self._state(number, ended=self._polls > self.polls_needed)

    def _results(self, number: int) -> Iterator[tuple[str, str]]:
        rows = self.jobs[number][1]
        made = [(row, self.result(len(self.jobs), prompt)) for row, prompt in rows]
        yield from (
            (row, text) for row, text in (reversed(made) if self.reverse else made) if text is not None
        )

    def _state(self, number: int, *, ended: bool = False) -> dict[str, Any]:
        label = self.jobs[number][0]
        if self.wire == "openai":
            status = "in_progress" if not ended else "failed" if self.fails else "completed"
            state = {"id": f"job-{number}", "object": "batch", "status": status, "metadata": {"label": label}}
            if ended and self.fails:
                return {**state, "errors": {"data": [{"code": "bad_file", "message": self.fails}]}}
            return {**state, "output_file_id": f"out-{number}" if ended else None}
        metadata: dict[str, Any] = {"displayName": label, "state": "BATCH_STATE_RUNNING"}
        if ended and self.fails:
            return {
                "name": f"batches/job-{number}",
                "metadata": {**metadata, "state": "BATCH_STATE_FAILED"},
                "error": {"code": 3, "message": self.fails},
            }
        if ended:
            replies = [
                {"metadata": {"key": row}, "response": answer("gemini", text)}
                for row, text in self._results(number)
            ]
            metadata |= {
                "state": "BATCH_STATE_SUCCEEDED",
                "output": {"inlinedResponses": {"inlinedResponses": replies}},
            }
        return {"name": f"batches/job-{number}", "metadata": metadata}


def _complete(settings: Settings, asked: list[Candidate], run_dir: Path | None = None) -> list[Candidate]:
    with Dispatcher(settings, run_dir=run_dir) as dispatcher:
        return dispatcher.complete(asked)


def _settings(make: Make, jobs: JobServer, server: Loopback, **options: Any) -> Settings:
    model = {"openai": "gpt-4.1-mini", "gemini": "gemini-2.5-flash"}[jobs.wire]
    provider = {"batch": True, "model_id": model, "retries": 2, **options}
    return make(jobs.wire, server.base_url(jobs.wire), provider=provider)


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_one_job_answers_all_at_half_the_price(wire: str, make_settings: Make, tmp_path: Path) -> None:
    jobs = JobServer(wire, reverse=True)
    with Loopback(jobs) as server:
        done = _complete(_settings(make_settings, jobs, server), candidates(wire, 8), tmp_path / "run")
        again = _complete(_settings(make_settings, jobs, server), candidates(wire, 8))
    assert len(jobs.jobs) == 1
    assert [c.completion for c in done] == [c.completion for c in again]
    by_row = {f"text of {prompt[-12:]}" for _, prompt in jobs.jobs[0][1]}
    assert {c.completion.text for c in done if c.completion} == by_row
    with Loopback(lambda seen: Act(body=answer(wire, "direct"))) as server:
        direct = _complete(
            _settings(make_settings, jobs, server, batch=False),
            candidates(wire, 1, first=100),
            tmp_path / "run2",
        )
    full, half = direct[0].telemetry.usage.cost_usd, done[0].telemetry.usage.cost_usd
    assert full is not None
    assert half == pytest.approx(full / 2)
    assert read_totals(tmp_path / "run").calls == 8


@pytest.mark.slow
def test_a_few_by_hand_are_asked_directly(
    make_settings: Make, tmp_path: Path, warm_up: Callable[[Path], Path]
) -> None:
    """`preview` and `debug` would wait a day."""
    warm_up(tmp_path / "cache")
    jobs = JobServer("openai")
    with (
        Loopback(lambda seen: Act(body=answer(seen.wire, "direct"))) as server,
        steps(_settings(make_settings, jobs, server)) as (_, complete, *_others),
    ):
        (done,) = complete(candidates("openai", 1))
    assert [seen.path for seen in server.seen] == ["/v1/chat/completions"]
    assert done.completion
    assert done.completion.text == "direct"


def _marked(number: int, prompt: str) -> str:
    mark = re.search(r"synth-id: [0-9a-f]{12}", prompt)
    assert mark is not None
    return f"for {prompt.splitlines()[0]}\n{mark[0]}"


def test_rows_that_come_back_under_the_wrong_id_are_told_by_their_mark(make_settings: Make) -> None:
    jobs = JobServer("gemini", result=_marked)
    original = JobServer._results

    def shifted(self: JobServer, number: int) -> Iterator[tuple[str, str]]:
        rows = list(original(self, number))
        ids = [row for row, _ in rows]
        yield from zip(ids[1:] + ids[:1], (text for _, text in rows), strict=True)

    asked = [
        c.model_copy(update={"prompt": c.prompt.model_copy(update={"text": f"question {c.index}"})})
        for c in candidates("gemini", 6)
        if c.prompt
    ]
    jobs._results = shifted.__get__(jobs)  # type: ignore[method-assign]
    with Loopback(jobs) as server:
        done = _complete(_settings(make_settings, jobs, server), asked)
    for candidate in done:
        assert candidate.completion is not None
        assert candidate.completion.text == f"for question {candidate.index}\n"


def test_forms_are_told_by_a_mark_as_well(make_settings: Make) -> None:
    """An answer under a JSON schema has no last line to hold one."""
    schemas: dict[str, dict[str, Any]] = {}

    def behave(seen: Seen) -> Act:
        if seen.path == "/v1/files":
            for line in re.findall(rb'^{"custom_id".*$', seen.raw, re.MULTILINE):
                row = json.loads(line)
                schemas[row["custom_id"]] = row["body"]["response_format"]["json_schema"]["schema"]
        return jobs(seen)

    def first_of_each(schema: dict[str, Any]) -> Any:
        if "properties" in schema:
            assert schema["required"] == list(schema["properties"])
            return {name: first_of_each(part) for name, part in schema["properties"].items()}
        return schema.get("enum", [True])[0]

    def shifted(self: JobServer, number: int) -> Iterator[tuple[str, str]]:
        ids = [row for row, _ in self.jobs[number][1]]
        texts = [json.dumps(first_of_each(schemas[row])) for row in ids]
        yield from zip(ids[1:] + ids[:1], texts, strict=True)

    jobs = JobServer("openai")
    jobs._results = shifted.__get__(jobs)  # type: ignore[method-assign]
    with Loopback(behave) as server:
        asked = candidates("openai", 5, prompt="layers")
        done = _complete(_settings(make_settings, jobs, server), asked)
    for candidate in done:
        assert candidate.completion is not None
        operators = candidate.specification.operators
        assert "synth_id" not in candidate.completion.text
        assert write_program(operators, candidate.completion.text)
        assert len(json.loads(candidate.completion.text)) == 3 + len(operators)  # of another there are more


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_rows_that_expired_are_asked_again_alone(wire: str, make_settings: Make, tmp_path: Path) -> None:
    kept = iter(range(10**6))
    jobs = JobServer(wire, result=lambda number, prompt: "x" if number > 1 or next(kept) % 3 else None)
    with Loopback(jobs) as server:
        done = _complete(_settings(make_settings, jobs, server), candidates(wire, 9), tmp_path / "run")
    assert [len(rows) for _, rows in jobs.jobs] == [9, 3]
    assert all(candidate.alive for candidate in done)
    assert sorted(candidate.telemetry.calls for candidate in done) == [1] * 6 + [2] * 3


@pytest.mark.parametrize(
    ("wire", "says"), [("openai", "batch failed: bad_file: row 3 is no JSON"), ("gemini", "ended as FAILED")]
)
def test_a_job_that_fails_whole_says_why(wire: str, says: str, make_settings: Make) -> None:
    jobs = JobServer(wire, fails="row 3 is no JSON")
    with Loopback(jobs) as server:
        done = _complete(_settings(make_settings, jobs, server, retries=1), candidates(wire, 3))
    assert len(jobs.jobs) == 2  # handed over once more
    assert [says in c.failure.detail for c in done if c.failure] == [True] * 3


def test_a_job_that_fails_for_the_account_is_not_handed_over_again(make_settings: Make) -> None:
    """Gemini's SDK leaves out why a job failed."""
    jobs = JobServer("openai", fails="Billing hard limit has been reached")
    with Loopback(jobs) as server, pytest.raises(HopelessProvider, match="Billing hard limit"):
        _complete(_settings(make_settings, jobs, server), candidates("openai", 3))
    assert len(jobs.jobs) == 1


def test_rows_that_no_further_call_would_mend_stop_the_run_and_cost_no_answer(make_settings: Make) -> None:
    """Half of the rows found the quota spent; what the others brought is kept."""
    jobs = JobServer("openai", result=lambda number, prompt: "text")
    spent = {"status_code": 429, "body": {"error": {"code": "insufficient_quota", "message": "none left"}}}

    def behave(seen: Seen) -> Act:
        act = jobs(seen)
        if seen.path.endswith("/content") and len(jobs.jobs) == 1:
            rows = [json.loads(line) for line in act.body.decode().split("\n")]
            lines = [json.dumps({**row, "response": spent} if i < 4 else row) for i, row in enumerate(rows)]
            return replace(act, body="\n".join(lines).encode())
        return act

    with Loopback(behave) as server:
        settings = _settings(make_settings, jobs, server)
        with pytest.raises(
            HopelessProvider, match=r"3 quota; 4 of the 4 earlier calls were answered.*none left"
        ):
            _complete(settings, candidates("openai", 8))
        done = _complete(settings, candidates("openai", 8))
    assert all(candidate.alive for candidate in done)
    assert [len(rows) for _, rows in jobs.jobs] == [8, 4]


@pytest.mark.parametrize("wire", ["openai", "gemini"])
@pytest.mark.parametrize("noted", [True, False], ids=["its name was noted", "killed before the note"])
def test_a_job_in_flight_is_found_again(wire: str, noted: bool, make_settings: Make) -> None:
    """The first session ends while the job runs; the second must not hand it over once more."""
    jobs = JobServer(wire, polls_needed=10**6, answers_submission=noted)
    with Loopback(jobs) as server:
        settings = _settings(make_settings, jobs, server)
        dispatcher = Dispatcher(settings)
        if noted:
            work = threading.Thread(target=_ask_until_closed, args=(dispatcher, wire))
            work.start()
            while not jobs._polls:
                work.join(0.01)
        else:
            with pytest.raises(EnvironmentFault, match="did not accept the batch"):
                dispatcher.complete(candidates(wire, 4))
        dispatcher.close()
        if noted:
            work.join()
        jobs.polls_needed, jobs._polls = 1, 0
        done = _complete(settings, candidates(wire, 4))
    assert len(jobs.jobs) == 1
    assert all(candidate.alive for candidate in done)


def _ask_until_closed(dispatcher: Dispatcher, wire: str) -> None:
    with contextlib.suppress(CancelledError):
        dispatcher.complete(candidates(wire, 4))


def test_the_budget_holds_for_rows(make_settings: Make) -> None:
    jobs = JobServer("openai")
    with Loopback(jobs) as server:
        settings = _settings(make_settings, jobs, server)
        settings = settings.model_copy(update={"budget": settings.budget.model_copy(update={"calls": 5})})
        done = _complete(settings, candidates("openai", 8))
    assert [len(rows) for _, rows in jobs.jobs] == [5]
    outcomes = [candidate.completion.outcome for candidate in done if candidate.completion]
    assert outcomes.count(Outcome.OVER_BUDGET) == 3


def test_a_job_that_was_not_taken_leaves_the_budget_as_it_was(make_settings: Make) -> None:
    """Prefect tries the stage again with the same dispatcher."""
    jobs = JobServer("openai")
    busy = True
    with Loopback(lambda seen: error("openai", 503, "busy") if busy else jobs(seen)) as server:
        settings = _settings(make_settings, jobs, server)
        settings = settings.model_copy(update={"budget": settings.budget.model_copy(update={"calls": 10})})
        with Dispatcher(settings) as dispatcher:
            with pytest.raises(EnvironmentFault, match="did not accept the batch"):
                dispatcher.complete(candidates("openai", 8))
            busy = False
            done = dispatcher.complete(candidates("openai", 8))
            assert not dispatcher.budget_spent
    assert [candidate.alive for candidate in done] == [True] * 8


def test_a_job_is_waited_for_as_long_as_wall_time_allows(make_settings: Make) -> None:
    jobs = JobServer("openai")
    with Loopback(jobs) as server:
        settings = _settings(make_settings, jobs, server)
        _complete(settings, candidates("openai", 1, first=9))  # loads the SDK, which would use up the time
        jobs.polls_needed = 10**6
        limited = settings.model_copy(update={"budget": settings.budget.model_copy(update={"wall_s": 2.0})})
        with Dispatcher(limited) as dispatcher:
            done = dispatcher.complete(candidates("openai", 4))
            assert dispatcher.budget_spent == "the budget of 2 s of wall time is spent"
        assert len(jobs.jobs) == 2
        assert [c.completion.outcome for c in done if c.completion] == [Outcome.OVER_BUDGET] * 4
        jobs.polls_needed = 1
        done = _complete(settings, candidates("openai", 4))
    assert all(candidate.alive for candidate in done)
    assert len(jobs.jobs) == 2  # the resumed run found it again


def test_a_job_that_never_ends_is_not_waited_for_for_ever(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_LONGEST_JOB", 0.1)
    jobs = JobServer("gemini", polls_needed=10**6)
    with Loopback(jobs) as server, pytest.raises(EnvironmentFault, match="has not ended"):
        _complete(_settings(make_settings, jobs, server), candidates("gemini", 2))


def test_the_budget_holds_for_rows_that_are_asked_again(make_settings: Make) -> None:
    jobs = JobServer("openai", result=lambda number, prompt: None if number == 1 else "text")
    with Loopback(jobs) as server:
        settings = _settings(make_settings, jobs, server)
        settings = settings.model_copy(update={"budget": settings.budget.model_copy(update={"calls": 4})})
        done = _complete(settings, candidates("openai", 3))
    assert [len(rows) for _, rows in jobs.jobs] == [3, 1]
    assert sum(candidate.alive for candidate in done) == 1
    assert [c.completion.outcome for c in done if c.completion].count(Outcome.OVER_BUDGET) == 2


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_a_bad_key_stops_the_run_and_stays_secret(wire: str, make_settings: Make) -> None:
    message = f"Incorrect API key {KEYS[wire]}"
    with Loopback(lambda _: error(wire, 401, message)) as server:
        settings = _settings(make_settings, JobServer(wire), server)
        with pytest.raises(HopelessProvider, match="did not accept the batch") as caught:
            _complete(settings, candidates(wire, 3))
    assert KEYS[wire][:6] not in str(caught.value)


def test_a_provider_without_batch_mode_says_so(make_settings: Make) -> None:
    settings = make_settings("local", "http://127.0.0.1:1/v1", provider={"batch": True})
    with pytest.raises(UsageError, match="no batch mode; --provider-batch is for gemini, openai"):
        require_key(settings)


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_what_a_crash_left_unkept_is_collected_again_and_not_paid_again(
    wire: str, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobServer(wire)
    kept = 0
    put = AnswerStore.put

    def put_until_the_disk_is_full(*arguments: Any, **more: Any) -> None:
        nonlocal kept
        kept += 1
        if kept == 4:
            raise EnvironmentFault("the disk is full")
        put(*arguments, **more)

    with Loopback(jobs) as server:
        settings = _settings(make_settings, jobs, server)
        with monkeypatch.context() as patch:
            patch.setattr(AnswerStore, "put", put_until_the_disk_is_full)
            with pytest.raises(EnvironmentFault, match="disk is full"):
                _complete(settings, candidates(wire, 8))
        done = _complete(settings, candidates(wire, 8))
    assert all(candidate.alive for candidate in done)
    assert len(jobs.jobs) == 1


def test_a_row_that_cannot_be_read_costs_that_row_alone(make_settings: Make) -> None:
    """A job of ten thousand answers must not be lost for one of them; a text may hold any line separator."""
    jobs = JobServer("openai", result=lambda number, prompt: f"one\u2028two\x85of job {number}")

    def behave(seen: Seen) -> Act:
        act = jobs(seen)
        if seen.path.endswith("/content") and len(jobs.jobs) == 1:
            first, *others = act.body.decode().split("\n")
            lines = [first.replace('"choices": [', '"choices": [7, '), "{no json", *others]
            return replace(act, body="\n".join(lines).encode())
        return act

    with Loopback(behave) as server:
        done = _complete(_settings(make_settings, jobs, server), candidates("openai", 6))
    assert all(candidate.alive for candidate in done), [c.failure for c in done]
    assert [len(rows) for _, rows in jobs.jobs] == [6, 1]


@pytest.mark.parametrize(("status", "kind"), [(401, HopelessProvider), (404, EnvironmentFault)])
def test_a_job_that_cannot_be_collected_is_said_at_once(
    status: int, kind: type[Exception], make_settings: Make
) -> None:
    jobs = JobServer("openai")

    def behave(seen: Seen) -> Act:
        if seen.method == "GET" and "/batches/" in seen.path and refusing:
            return error("openai", status, "no")
        return jobs(seen)

    refusing = True
    with Loopback(behave) as server:
        settings = _settings(make_settings, jobs, server)
        with pytest.raises(kind, match="batch"):
            _complete(settings, candidates("openai", 3))
        refusing = False
        assert all(candidate.alive for candidate in _complete(settings, candidates("openai", 3)))
    assert len(jobs.jobs) == (2 if status == 404 else 1)
