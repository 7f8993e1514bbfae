"""Half-price batch mode: many questions are submitted as one job, and the answers come within a day.

A note of the job and its rows lies in `batches/` of the cache folder until all answers are stored. So a run
that was killed finds its job again days later, even if it asks only some of its rows. The job's label is
noted before the job is submitted, and its name after. If the run is killed between the two, it finds the job
by its label in the provider's list.

Providers have returned rows in the wrong order. So each prompt asks the model to repeat a mark, and the mark
tells which question an answer belongs to. Rows that failed or expired are submitted again in a smaller job.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from synth_core.atomic import write_atomic
from synth_core.errors import EnvironmentFault, HopelessProvider
from synth_core.providers.call import HOPELESS, RETRYABLE, Connection, Reply, Request, classify, failed
from synth_core.records import Outcome

_FIRST_POLL, _LONGEST_POLL = 15.0, 300.0  # seconds between polls of a job, doubled each time
_LONGEST_JOB = 3 * 86400.0  # seconds; providers end a job after one or two days
_MOST_FAILURES = 10  # polls of a job that may fail in a row
_MARK_FIELD = "synth_id"
_MARK = re.compile(r"synth-id:\s*([0-9a-f]{12})")


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    replies: by row id. error: the provider's message about rows that have no reply.
    """

    replies: dict[str, Reply]
    error: str = ""


class Batches(Protocol):
    """A provider's batch mode. `rows` are questions by id; an id consists of letters and digits."""

    async def submit(self, label: str, rows: Mapping[str, Request]) -> str:
        """Submit a job. Returns its name at the provider."""

    async def find(self, label: str) -> str | None:
        """The name of the job with this label, or None."""

    async def collect(self, job: str) -> Ended | None:
        """The result of a job, or None while it runs. A row without a reply has failed."""


ConnectBatches = Callable[[Connection], AbstractAsyncContextManager[Batches]]


@dataclass(frozen=True)
class JobFolder:
    """Keeps one note for each job in flight."""

    path: Path

    def find(self, rows: Collection[str]) -> tuple[str, str] | None:
        """Label and name of a job that contains all these rows. The name is empty if it was never noted."""
        for path in self.path.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                note = json.loads(path.read_text())
                if set(rows) <= set(note["rows"]):
                    return path.stem, note["job"]
        return None

    def note(self, label: str, job: str, rows: Collection[str]) -> None:
        """Write the note to disk, so that a later run finds the job that was paid for.

        Raises `EnvironmentFault` if it cannot be written.
        """
        note = json.dumps({"job": job, "noted": time.time(), "rows": list(rows)})
        write_atomic(self.path / f"{label}.json", note.encode())

    def forget(self, label: str) -> None:
        (self.path / f"{label}.json").unlink(missing_ok=True)


async def ask_in_batches(
    batches: Batches,
    questions: Mapping[str, Request],
    folder: JobFolder,
    retries: int,
    keep: Callable[[str, Reply], None],
    admit: Callable[[str], bool],
    time_left: Callable[[], float],
) -> None:
    """Ask the questions in one job, and submit the rows that failed again in further jobs.

    questions: by key.
    retries: how often rows that failed are submitted again.
    keep: called with key and reply as soon as a job has ended; again for later replies to the same key.
    admit: whether the row of a key may be submitted again.
    time_left: seconds. At 0 this returns, even if the job still runs; its note stays.
    Raises `EnvironmentFault` if the provider does not accept the job or cannot be reached; the note stays.
    Raises `HopelessProvider` if a job fails because of the key, the quota or the account.
    """
    replies: dict[str, Reply] = {}
    for _ in range(retries + 1):
        failed_rows = [key for key, reply in replies.items() if reply.outcome in RETRYABLE]
        left = [key for key in failed_rows if admit(key)] if replies else list(questions)
        if not left:
            break
        # Sorted, so that the job is the same for any order of the questions.
        rows = {_row(key): _marked(questions[key], _row(key)) for key in sorted(left)}
        label, ended = await _one_job(batches, rows, folder, time_left)
        if ended is None:
            return
        error = ended.error or "the batch ended without an answer to this row"
        for key in left:
            replies[key] = ended.replies.get(_row(key)) or failed(Outcome.TRANSIENT, error)
        # Good answers first. The rows have no order in time; else a breaker might see ten failures in a row.
        for key in sorted(left, key=lambda key: replies[key].outcome is not Outcome.OK):
            keep(key, replies[key])
        folder.forget(label)  # only now: after a kill before this line, the answers are collected again
        if classify(400, "", ended.error) in HOPELESS:
            raise HopelessProvider(f"the provider ended the batch: {ended.error}")


async def _one_job(
    batches: Batches, rows: Mapping[str, Request], folder: JobFolder, time_left: Callable[[], float]
) -> tuple[str, Ended | None]:
    """Submit a job and wait for it. Returns its label and its result, or None if no time was left."""
    label, job = await _submit_or_find(batches, rows, folder)
    pause, failures = _FIRST_POLL, 0
    began = time.monotonic()
    while True:
        try:
            ended, failures = await batches.collect(job), 0
        except Exception as error:
            ended, failures = None, failures + 1
            outcome = _outcome(error)
            if outcome is Outcome.UNKNOWN_MODEL:  # 404: the job does not exist and will not come back
                folder.forget(label)
                raise EnvironmentFault(
                    f"the batch {job} no longer exists; a resumed run submits its rows again"
                ) from None
            if outcome in HOPELESS:
                raise HopelessProvider(f"the batch {job} cannot be collected: {error}") from None
            if failures == _MOST_FAILURES:
                raise EnvironmentFault(f"cannot get the status of the batch {job}: {error}") from None
        if ended is not None:
            return label, replace(ended, replies=_by_mark(ended.replies))
        if not time_left():
            return label, None
        if time.monotonic() - began > _LONGEST_JOB:
            days = _LONGEST_JOB / 86400
            raise EnvironmentFault(
                f"the batch {job} has not ended in {days:g} days; a resumed run waits for it again"
            )
        await asyncio.sleep(min(pause, time_left()))
        pause = min(_LONGEST_POLL, pause * 2)


async def _submit_or_find(
    batches: Batches, rows: Mapping[str, Request], folder: JobFolder
) -> tuple[str, str]:
    """Label and name of the job that contains these rows: an earlier job, or a new one."""
    try:
        if noted := folder.find(rows.keys()):
            label, job = noted
            if job := job or await batches.find(label) or "":
                return label, job
            folder.forget(label)
        label = f"synth-{uuid4().hex[:24]}"
        folder.note(label, "", rows)
        job = await batches.submit(label, rows)
    except Exception as error:  # whatever the SDK raises
        kind = HopelessProvider if _outcome(error) in HOPELESS else EnvironmentFault
        raise kind(f"the provider did not accept the batch: {error}") from None
    folder.note(label, job, rows)
    return label, job


def _outcome(error: Exception) -> Outcome | None:
    """The outcome of an SDK's exception, from its HTTP status. None if it has no status."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    return classify(status, "", str(error)) if isinstance(status, int) else None


def _row(key: str) -> str:
    return key[:12]


def _marked(request: Request, row: str) -> Request:
    mark = f"synth-id: {row}"
    if (schema := request.schema) is None:
        ending = f"\n\nAs the very last line of your answer, repeat this: {mark}"
        return replace(request, text=request.text + ending)
    # A JSON answer has no last line. So the mark is one more field, and the schema allows one value for it.
    properties = {_MARK_FIELD: {"enum": [mark]}, **schema["properties"]}
    required = [_MARK_FIELD, *schema["required"]]
    return replace(request, schema={**schema, "properties": properties, "required": required})


def _unmarked(text: str) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        fields = json.loads(text)
        del fields[_MARK_FIELD]
        return json.dumps(fields)
    return _MARK.sub("", text).rstrip() + "\n"


def _by_mark(received: Mapping[str, Reply]) -> dict[str, Reply]:
    """Assign replies to rows by their marks, and remove the marks.

    If mark and id disagree, the mark decides. A reply whose mark belongs to no row is dropped.
    """
    sure: dict[str, Reply] = {}
    for row, reply in received.items():
        marks = _MARK.findall(reply.text)
        owner = marks[-1] if marks else row
        if owner != row and owner not in received:
            continue
        text = _unmarked(reply.text) if marks else reply.text
        if owner not in sure or marks:
            sure[owner] = replace(reply, text=text)
    return sure
