"""Gemini's batch mode: one job contains all requests, each with its row id in its metadata."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from google import genai
from google.genai import types

from synth_core.providers.batch import Batches, Ended
from synth_core.providers.call import Connection, Reply, Request, classify, failed
from synth_core.providers.gemini_api import configuration, open_client, read
from synth_core.records import Outcome

_RUNNING = frozenset({"QUEUED", "PENDING", "RUNNING", "CANCELLING", "PAUSED", "UPDATING", "UNSPECIFIED"})


@asynccontextmanager
async def connect(connection: Connection) -> AsyncIterator[Batches]:
    """The batch jobs of one account."""
    async with open_client(connection) as client:
        yield _GeminiBatches(client)


class _GeminiBatches:
    def __init__(self, client: genai.Client) -> None:
        self._jobs = client.aio.batches

    async def submit(self, label: str, rows: Mapping[str, Request]) -> str:
        requests = [
            types.InlinedRequest(contents=request.text, config=configuration(request), metadata={"key": row})
            for row, request in rows.items()
        ]
        model = next(iter(rows.values())).model
        config = types.CreateBatchJobConfig(display_name=label)
        job = await self._jobs.create(model=model, src=requests, config=config)
        assert job.name is not None
        return job.name

    async def find(self, label: str) -> str | None:
        async for job in await self._jobs.list(config=types.ListBatchJobsConfig(page_size=100)):
            if job.display_name == label and _state(job) not in {"FAILED", "CANCELLED"}:
                return job.name
        return None

    async def collect(self, job: str) -> Ended | None:
        state = await self._jobs.get(name=job)
        if _state(state) in _RUNNING:
            return None
        rows = (state.dest.inlined_responses if state.dest else None) or []
        replies = {row.metadata["key"]: _reply(row) for row in rows if row.metadata and "key" in row.metadata}
        said = f": {state.error.message}" if state.error else ""  # the SDK fills it in for Vertex only
        return Ended(replies, "" if replies else f"the batch ended as {_state(state)}{said}")


def _state(job: types.BatchJob) -> str:
    return (job.state.value if job.state else "UNSPECIFIED").removeprefix("JOB_STATE_")


def _reply(row: types.InlinedResponse) -> Reply:
    if row.response is not None:
        return read(row.response)
    error = row.error
    if error is None:
        return failed(Outcome.TRANSIENT, "the row has no answer")
    status = {8: 429, 13: 500, 14: 503}.get(error.code or 0, error.code or 500)  # gRPC codes
    return failed(
        classify(status, "", error.message or ""), f"code {error.code}: {error.message}", status=status
    )
