"""OpenAI's batch mode: upload a file of requests, download a file of answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import openai
from openai.types.chat import ChatCompletion
from pydantic import ValidationError

from synth_core.providers.batch import Batches, Ended
from synth_core.providers.call import Connection, Reply, Request, classify, failed
from synth_core.providers.openai_api import OPTIONAL, open_client, parameters, read
from synth_core.records import Outcome

_ENDPOINT: Final = "/v1/chat/completions"
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


@asynccontextmanager
async def connect(connection: Connection) -> AsyncIterator[Batches]:
    """The batch jobs of one account."""
    async with open_client(connection) as client:
        yield _OpenAIBatches(client, connection)


class _OpenAIBatches:
    def __init__(self, client: openai.AsyncOpenAI, connection: Connection) -> None:
        self._client = client
        self._connection = connection
        self._refused: set[str] = set()  # parameters that the model does not accept

    async def submit(self, label: str, rows: Mapping[str, Request]) -> str:
        lines = (
            {
                "custom_id": row,
                "method": "POST",
                "url": _ENDPOINT,
                "body": parameters(self._connection, request, self._refused),
            }
            for row, request in rows.items()
        )
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        uploaded = await self._client.files.create(file=(f"{label}.jsonl", data), purpose="batch")
        job = await self._client.batches.create(
            input_file_id=uploaded.id,
            endpoint=_ENDPOINT,
            completion_window="24h",
            metadata={"label": label},
        )
        return job.id

    async def find(self, label: str) -> str | None:
        async for job in self._client.batches.list(limit=100):
            if (job.metadata or {}).get("label") == label and job.status not in {"failed", "cancelled"}:
                return job.id
        return None

    async def collect(self, job: str) -> Ended | None:
        state = await self._client.batches.retrieve(job)
        if state.status not in _ENDED:
            return None
        replies: dict[str, Reply] = {}
        for file in (state.output_file_id, state.error_file_id):
            if file:
                content = await self._client.files.content(file)
                for line in content.text.split("\n"):  # splitlines would also split inside texts
                    # A line that cannot be read is a row without a reply: it is submitted again.
                    with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
                        row = json.loads(line)
                        replies[row["custom_id"]] = self._reply(row)
        said = (state.errors and state.errors.data) or []
        error = "; ".join(f"{one.code}: {one.message}" for one in said[:3])
        return Ended(replies, f"the batch {state.status}: {error}" if error else "")

    def _reply(self, row: dict[str, Any]) -> Reply:
        response = row.get("response") or {}
        status, body = response.get("status_code", 0), response.get("body") or {}
        if status == 200:
            try:
                return read(ChatCompletion.model_validate(body))
            except ValidationError as odd:
                return failed(Outcome.BAD_RESPONSE, f"the answer cannot be read: {odd}", status=200)
        error = row.get("error") or body.get("error") or {}
        message = error.get("message") or "the row was not asked"
        if not status:  # the row expired or was cancelled before the provider ran it
            return failed(Outcome.TRANSIENT, message)
        if status == 400 and error.get("param") in OPTIONAL:
            self._refused.add(error["param"])
            return failed(Outcome.TRANSIENT, f"{message} (later calls omit it)", status=400)
        outcome = classify(status, str(error.get("code", "")), message)
        return failed(outcome, f"HTTP {status}: {message}", status=status)
