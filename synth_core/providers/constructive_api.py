"""The provider `constructive`: the synthesizer writes programs on this machine, without LLM or network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from synth_core.providers.call import Complete, Connection, Reply, Request, failed
from synth_core.providers.constructive import Synthesizer
from synth_core.records import GpuSizes, Outcome


@asynccontextmanager
async def connect(connection: Connection) -> AsyncIterator[Complete]:
    """Write programs in warm children. The same operators and seed give the same text on every machine."""
    synthesizer = Synthesizer(connection.workers)
    threads = ThreadPoolExecutor(connection.workers, thread_name_prefix="synthesizer")

    def write(operators: tuple[str, ...], seed: int) -> Reply:
        written = synthesizer.write(operators, seed)
        if isinstance(written, str):
            return failed(Outcome.BAD_REQUEST, written)
        sizes: GpuSizes | str = ""
        if connection.settings.sizes == "both":
            sizes = synthesizer.enlarge(written.source, connection.settings.shape_sets, seed)
        text = f"{written.plan}\n\n```python\n{written.source}```\n"
        return Reply(
            outcome=Outcome.OK,
            text=text,
            serving_model="constructive",
            sizes=sizes if isinstance(sizes, GpuSizes) else None,
        )

    async def complete(request: Request) -> Reply:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, write, request.operators, request.seed)

    try:
        yield complete
    finally:
        threads.shutdown(cancel_futures=True)
        synthesizer.close()
