"""A provider of your own. Usage: synth generate --model-name own_provider:ask --num-total-samples 4

`ask` gets one question and gives one answer. Limits, retries, budgets, the ledger and the cache come with it.
Put the call of your own model where `write` stands; here the synthesizer answers, so that nothing is needed.
"""

from __future__ import annotations

import asyncio

import synth_core
from synth_core.providers.call import Reply, Request
from synth_core.records import Outcome, Usage


async def ask(request: Request) -> Reply:
    """Answer one question. `request.system` and `request.text` are the prompt."""
    try:
        answer = await asyncio.to_thread(write, request)
    except synth_core.CannotWrite as error:
        return Reply(outcome=Outcome.BAD_REQUEST, error=str(error))
    usage = Usage(input_tokens=len(request.text.split()), output_tokens=len(answer.split()))
    return Reply(outcome=Outcome.OK, text=answer, serving_model="my-model-1", usage=usage)


def write(request: Request) -> str:
    """An answer in Markdown, with the program in a block of code."""
    program = synth_core.synthesize(request.operators, seed=request.seed)
    return f"{program.plan}\n\n```python\n{program.source}```\n"
