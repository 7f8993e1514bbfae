"""Half-price batch mode: questions handed over as one job, whose answers come within a day.

The job is on disk at once (`batches/` in the cache folder), with the rows it asks, until all its answers are
kept: a run that is killed finds it again days later, also by some of its rows. Its label is noted before the
hand-over, so that one killed between the hand-over and the note of the job's name finds it among the
provider's jobs. Besides the row's id, a mark that the prompt asks to repeat tells which question an answer
belongs to, because providers have returned rows out of order. Rows that failed or expired are asked again
alone.
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

_FIRST_POLL, _LONGEST_POLL = 15.0, 300.0  # seconds between looks at a job, doubled each time
_LONGEST_JOB = 3 * 86400.0  # seconds; providers end a job by themselves after one day or two
_MOST_FAILURES = 10  # looks at a job that may fail in a row
_MARK_FIELD = "synth_id"
_MARK = re.compile(r"synth-id:\s*([0-9a-f]{12})")


@dataclass(frozen=True)
class Ended:
    """A job that has ended: replies by id, and what the provider says of rows that have none."""

    replies: dict[str, Reply]
    error: str = ""


class Batches(Protocol):
    """What a provider offers. Rows are questions by id; an id is safe as a name."""

    async def submit(self, label: str, rows: Mapping[str, Request]) -> str:
        """Hand over a job; its name at the provider."""

    async def find(self, label: str) -> str | None:
        """The name of the job handed over under a label, if there is one."""

    async def collect(self, job: str) -> Ended | None:
        """What came of a job, or None while it runs. Rows that are missing have failed."""


ConnectBatches = Callable[[Connection], AbstractAsyncContextManager[Batches]]


@dataclass(frozen=True)
class JobFolder:
    """Where the names of jobs in flight are kept."""

    path: Path

    def find(self, rows: Collection[str]) -> tuple[str, str] | None:
        """Label and name of a job that asks all these rows; the name is empty if it was never noted."""
        for path in self.path.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                note = json.loads(path.read_text())
                if set(rows) <= set(note["rows"]):
                    return path.stem, note["job"]
        return None

    def note(self, label: str, job: str, rows: Collection[str]) -> None:
        """On disk for good: whoever pays for a job finds it again. Raises `EnvironmentFault`."""
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
    """Ask the questions, given by key; `keep` is handed each reply the moment it is there.

    Ends without the replies of a job that has not ended when no `time_left` (seconds): the job stays noted.

    retries: how often the rows that failed are handed over again, as far as `admit` lets them in; `keep`
        gets their later replies too.
    Raises `EnvironmentFault` where the provider does not take the job or loses touch; the job stays noted.
    `HopelessProvider` where a job fails for the key, the quota or the account.
    """
    replies: dict[str, Reply] = {}
    for _ in range(retries + 1):
        failed_rows = [key for key, reply in replies.items() if reply.outcome in RETRYABLE]
        left = [key for key in failed_rows if admit(key)] if replies else list(questions)
        if not left:
            break
        # Sorted: what a job asks is the same whatever the order it is asked in.
        rows = {_row(key): _marked(questions[key], _row(key)) for key in sorted(left)}
        label, ended = await _one_job(batches, rows, folder, time_left)
        if ended is None:
            return
        error = ended.error or "the batch ended without an answer to this row"
        for key in left:
            replies[key] = ended.replies.get(_row(key)) or failed(Outcome.TRANSIENT, error)
        # Good answers first: they came in no order, so a breaker must not see ten failures before them.
        for key in sorted(left, key=lambda key: replies[key].outcome is not Outcome.OK):
            keep(key, replies[key])
        folder.forget(label)  # only now: what a kill leaves unkept is collected again, not asked again
        if classify(400, "", ended.error) in HOPELESS:
            raise HopelessProvider(f"the provider gave the batch up: {ended.error}")


async def _one_job(
    batches: Batches, rows: Mapping[str, Request], folder: JobFolder, time_left: Callable[[], float]
) -> tuple[str, Ended | None]:
    """The label of the job that asks these rows, and what came of it: None if no time was left to wait."""
    label, job = await _hand_over(batches, rows, folder)
    pause, failures = _FIRST_POLL, 0
    began = time.monotonic()
    while True:
        try:
            ended, failures = await batches.collect(job), 0
        except Exception as error:
            ended, failures = None, failures + 1
            outcome = _outcome(error)
            if outcome is Outcome.UNKNOWN_MODEL:  # 404: to ask for it again would find it gone each time
                folder.forget(label)
                raise EnvironmentFault(f"the batch {job} is gone; a resumed run asks its rows anew") from None
            if outcome in HOPELESS:
                raise HopelessProvider(f"the batch {job} cannot be collected: {error}") from None
            if failures == _MOST_FAILURES:
                raise EnvironmentFault(f"lost touch with the batch {job}: {error}") from None
        if ended is not None:
            return label, replace(ended, replies=_by_mark(ended.replies))
        if not time_left():
            return label, None
        if time.monotonic() - began > _LONGEST_JOB:
            days = _LONGEST_JOB / 86400
            raise EnvironmentFault(
                f"the batch {job} has not ended in {days:g} days; a resumed run looks again"
            )
        await asyncio.sleep(min(pause, time_left()))
        pause = min(_LONGEST_POLL, pause * 2)


async def _hand_over(batches: Batches, rows: Mapping[str, Request], folder: JobFolder) -> tuple[str, str]:
    """Label and name of the job that asks these rows: one handed over before, or a new one."""
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
        raise kind(f"the provider did not take the batch: {error}") from None
    folder.note(label, job, rows)
    return label, job


def _outcome(error: Exception) -> Outcome | None:
    """What an SDK's exception means by the status it carries, if it carries one."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    return classify(status, "", str(error)) if isinstance(status, int) else None


def _row(key: str) -> str:
    return key[:12]


def _marked(request: Request, row: str) -> Request:
    mark = f"synth-id: {row}"
    if (schema := request.schema) is None:
        ending = f"\n\nAs the very last line of your answer, repeat this: {mark}"
        return replace(request, text=request.text + ending)
    # Such an answer has no last line; the mark is one more field of it, with one value to choose from.
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
    """Replies by the id they are sure to belong to: where id and mark disagree the mark tells, and one that
    neither confirms is dropped. The mark itself is no part of the answer."""
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
