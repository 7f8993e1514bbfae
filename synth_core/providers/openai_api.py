"""OpenAI and every server with its protocol (vLLM, SGLang, llama.cpp, Ollama), through the openai SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
from openai.types import Completion as TextCompletion
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion

from synth_core.form import answer_grammar
from synth_core.providers.call import (
    Complete,
    Connection,
    Reply,
    Request,
    classify,
    failed,
    hidden_error,
    parse_retry_after,
)
from synth_core.records import Outcome, Usage

_ADDRESS = "https://api.openai.com/v1"
_FINISHED = {"length": Outcome.TRUNCATED, "content_filter": Outcome.BLOCKED}
# Parameters that some models refuse (reasoning models accept no temperature). Requests work without them.
OPTIONAL = frozenset({"temperature", "seed"})


@asynccontextmanager
async def connect(connection: Connection) -> AsyncIterator[Complete]:
    """Calls to one server. `settings.api` selects chat completions or plain completions."""
    refused: set[str] = set()
    async with open_client(connection) as client:

        async def complete(request: Request) -> Reply:
            return await _ask(client, connection, request, refused)

        yield complete


@asynccontextmanager
async def open_client(connection: Connection) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK's client with its own retries off and the user's address, key and CA."""
    settings = connection.settings
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=settings.concurrency)
    http_client = openai.DefaultAsyncHttpxClient(
        verify=connection.ssl_context() or True,
        limits=limits,
        timeout=settings.timeout,
        follow_redirects=False,  # never send the key to another address
    )
    async with openai.AsyncOpenAI(
        api_key=connection.key.get_secret_value() if connection.key else "none",
        base_url=settings.base_url or _ADDRESS,  # never the environment's: no key in the answer cache has it
        timeout=settings.timeout,
        max_retries=0,
        http_client=http_client,
    ) as client:
        yield client


async def _ask(
    client: openai.AsyncOpenAI, connection: Connection, request: Request, refused: set[str]
) -> Reply:
    body = parameters(connection, request, refused)
    try:
        if connection.settings.api == "completions":
            return read(await client.completions.create(**body))
        return read(await client.chat.completions.create(**body))
    except openai.APIStatusError as error:
        if error.status_code == 400 and error.param in OPTIONAL and error.param in body:
            refused.add(error.param)
            return failed(Outcome.TRANSIENT, f"{error.message} (later calls omit it)", status=400)
        return _status_error(error)
    except openai.APITimeoutError as error:
        return failed(Outcome.TIMEOUT, error)
    except openai.APIConnectionError as error:
        return failed(Outcome.TRANSIENT, f"{error} {error.__cause__ or ''}")
    except (openai.APIError, json.JSONDecodeError, UnicodeDecodeError, httpx2.DecodingError) as error:
        return failed(Outcome.BAD_RESPONSE, f"the answer cannot be read: {error}", status=200)
    except httpx2.HTTPError as error:
        return failed(Outcome.TRANSIENT, error)


def parameters(connection: Connection, request: Request, refused: Collection[str]) -> dict[str, Any]:
    """The body of one request, without the parameters in `refused`.

    With a base URL, the body has the older parameters `max_tokens` and `seed`: compatible servers know them.
    OpenAI itself gets `max_completion_tokens`.
    """
    options: dict[str, Any] = {"model": request.model, "temperature": request.temperature}
    if connection.settings.api == "completions":
        prompt = f"{request.system}\n{request.text}" if request.system else request.text
        options |= {"prompt": prompt, "max_tokens": request.max_tokens}
    else:
        said = [("system", request.system), ("user", request.text)]
        options["messages"] = [{"role": role, "content": text} for role, text in said if text]
        if connection.settings.base_url:
            options |= {"max_tokens": request.max_tokens, "seed": request.seed}
        else:
            options["max_completion_tokens"] = request.max_tokens
    if request.schema is not None and "prompt" in options:  # plain completions have no schema option
        options["extra_body"] = {"grammar": answer_grammar(request.schema)}
    elif request.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {name: value for name, value in options.items() if name not in refused}


def read(answer: Any) -> Reply:
    """Map a response with status 200 to a reply.

    The SDK does not check responses, so any field may be missing or have another type.
    """
    if not isinstance(answer, ChatCompletion | TextCompletion):
        what = f"the answer is not a completion: {str(answer)[:200]}"
        return failed(Outcome.BAD_RESPONSE, what, status=200)
    about: dict[str, Any] = {
        "usage": _usage(answer.usage),
        "serving_model": str(getattr(answer, "model", None) or ""),
        "status": 200,
    }
    if not answer.choices:
        if error := getattr(answer, "error", None):
            return _hidden_error(error, about)
        return failed(Outcome.EMPTY, "the answer has no choices", **about)
    choice: Any = answer.choices[0]
    finish = str(choice.finish_reason or "")
    if finish == "error":  # a gateway reports that its server failed during the answer
        return _hidden_error(getattr(choice, "error", None) or "the server failed during the answer", about)
    if isinstance(answer, TextCompletion):
        text = choice.text
    else:
        text = choice.message.content if choice.message else None
        if choice.message and (refusal := getattr(choice.message, "refusal", None)):
            return failed(Outcome.BLOCKED, refusal, finish_reason=finish, **about)
    outcome = _FINISHED.get(finish, Outcome.OK)
    if not isinstance(text, str) or not text.strip():
        if outcome is Outcome.OK:
            return failed(Outcome.EMPTY, "the answer has no text", finish_reason=finish, **about)
        text = ""
    return Reply(outcome=outcome, text=text, finish_reason=finish, **about)


def _hidden_error(error: object, about: dict[str, Any]) -> Reply:
    """Map a response with status 200 that contains an error, as if the status had reported the error."""
    status, body = hidden_error(error)
    code, message = f"{body.get('code') or ''} {body.get('type') or ''}", str(body.get("message") or body)
    return failed(
        classify(status, code, message),
        f"HTTP 200 with the error {status}: {message}",
        **{**about, "status": status},
    )


def _usage(usage: CompletionUsage | None) -> Usage:
    if not isinstance(usage, CompletionUsage):
        return Usage()
    prompt_details = usage.prompt_tokens_details
    output_details = usage.completion_tokens_details
    thinking = _count(output_details and output_details.reasoning_tokens)
    return Usage(
        input_tokens=_count(usage.prompt_tokens),
        output_tokens=max(0, _count(usage.completion_tokens) - thinking),
        thinking_tokens=thinking,
        cached_tokens=_count(prompt_details and prompt_details.cached_tokens),
    )


def _count(value: Any) -> int:
    """A token count from a server, where it may be missing, negative or not a number."""
    return max(0, value) if isinstance(value, int) else 0


def _status_error(error: openai.APIStatusError) -> Reply:
    headers = error.response.headers
    milliseconds = parse_retry_after(headers.get("retry-after-ms"))
    hint = milliseconds / 1000 if milliseconds is not None else parse_retry_after(headers.get("retry-after"))
    code = f"{error.code or ''} {error.type or ''}"
    message = error.message.removeprefix(f"Error code: {error.status_code}").removeprefix(" - ")
    return failed(
        classify(error.status_code, code, message),
        f"HTTP {error.status_code}: {message}",
        status=error.status_code,
        retry_after=hint,
    )
