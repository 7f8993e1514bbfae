"""Gemini, by the google-genai SDK."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from google import genai
from google.genai import errors, types
from pydantic import ValidationError

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

# The SDK warns about finish reasons newer than itself. The user can do nothing about that.
warnings.filterwarnings("ignore", category=UserWarning, module="google.genai")

_ADDRESS = "https://generativelanguage.googleapis.com/"
_BLOCKED = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "IMAGE_SAFETY"}
)


@asynccontextmanager
async def connect(connection: Connection) -> AsyncIterator[Complete]:
    """Calls to the Gemini API."""
    async with open_client(connection) as client:

        async def complete(request: Request) -> Reply:
            return await _ask(client, request)

        yield complete


@asynccontextmanager
async def open_client(connection: Connection) -> AsyncIterator[genai.Client]:
    """The SDK's client, with our own HTTP client.

    The SDK's default client has no timeout and few connections. If aiohttp is installed, the SDK uses it
    instead; then it follows redirects, retries, and ignores the user's CA. Environment variables also change
    the SDK's library, address and use of Vertex AI. We fix all three, because the answer cache's key does
    not contain them.
    """
    settings = connection.settings
    async with httpx2.AsyncClient(
        verify=connection.ssl_context() or True,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=settings.concurrency),
        timeout=settings.timeout,
        follow_redirects=False,  # never send the key to another address
        event_hooks={"response": [_raise_hidden_error]},
    ) as http_client:
        yield genai.Client(
            vertexai=False,
            api_key=connection.key.get_secret_value() if connection.key else None,
            http_options=types.HttpOptions(
                base_url=settings.base_url or _ADDRESS,
                api_version="v1beta",
                timeout=int(settings.timeout * 1000),  # milliseconds
                httpx_async_client=http_client,
            ),
        )


async def _raise_hidden_error(response: httpx2.Response) -> None:
    """Raise if a response with status 200 contains an error. The SDK would read it as an empty answer."""
    if response.status_code != 200 or not response.url.path.endswith(":generateContent"):
        return
    content = await response.aread()
    if b'"error"' not in content or b'"candidates"' in content:
        return
    answer = response.json()
    if isinstance(answer, dict) and answer.get("error"):
        status, error = hidden_error(answer["error"])
        await errors.APIError.raise_error_async(status, {"error": error}, response)


def configuration(request: Request) -> types.GenerateContentConfig:
    """The SDK's parameters for one question."""
    return types.GenerateContentConfig(
        system_instruction=request.system or None,
        temperature=request.temperature,
        max_output_tokens=request.max_tokens,
        response_mime_type="application/json" if request.schema is not None else None,
        response_json_schema=request.schema,
        automatic_continuation=False,  # else the SDK makes calls that budget and ledger do not see
    )


async def _ask(client: genai.Client, request: Request) -> Reply:
    try:
        answer = await client.aio.models.generate_content(
            model=request.model, contents=request.text, config=configuration(request)
        )
    except errors.APIError as error:
        return _status_error(error)
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError, httpx2.DecodingError) as error:
        return failed(Outcome.BAD_RESPONSE, f"the answer cannot be read: {error}", status=200)
    except httpx2.TimeoutException as error:
        return failed(Outcome.TIMEOUT, error)
    except httpx2.HTTPError as error:
        return failed(Outcome.TRANSIENT, error)
    return read(answer)


def read(answer: types.GenerateContentResponse) -> Reply:
    """Map a response with status 200 to a reply.

    A blocked prompt has no candidates. If the model used all tokens for thinking, the content has no parts.
    """
    about: dict[str, Any] = {
        "usage": _usage(answer.usage_metadata),
        "serving_model": answer.model_version or "",
        "status": 200,
    }
    if not answer.candidates:
        reason = answer.prompt_feedback and answer.prompt_feedback.block_reason
        if reason:
            return failed(Outcome.BLOCKED, f"prompt blocked: {reason.value}", **about)
        return failed(Outcome.EMPTY, "the answer has no candidates", **about)
    first = answer.candidates[0]
    finish = first.finish_reason.value if first.finish_reason else ""
    parts = (first.content and first.content.parts) or []
    text = "".join(part.text or "" for part in parts if not part.thought)
    if finish in _BLOCKED:
        return failed(Outcome.BLOCKED, f"answer blocked: {finish}", finish_reason=finish, **about)
    if finish in {"MAX_TOKENS", "CONTINUATION"}:
        return Reply(outcome=Outcome.TRUNCATED, text=text, finish_reason=finish, **about)
    if not text.strip():
        return failed(Outcome.EMPTY, "the answer has no text", finish_reason=finish, **about)
    return Reply(outcome=Outcome.OK, text=text, finish_reason=finish, **about)


def _usage(usage: types.GenerateContentResponseUsageMetadata | None) -> Usage:
    if usage is None:
        return Usage()
    return Usage(
        input_tokens=max(0, usage.prompt_token_count or 0),
        output_tokens=max(0, usage.candidates_token_count or 0),
        thinking_tokens=max(0, usage.thoughts_token_count or 0),
        cached_tokens=max(0, usage.cached_content_token_count or 0),
    )


def _status_error(error: errors.APIError) -> Reply:
    """Google gives the reason in `details`: ErrorInfo.reason, QuotaFailure.quotaId, RetryInfo.retryDelay."""
    body = error.details if isinstance(error.details, dict) else {}
    inner = body.get("error", body)
    details = inner.get("details", []) if isinstance(inner, dict) else []
    hint: float | None = None
    codes = [error.status or ""]
    for detail in details if isinstance(details, list) else []:
        if not isinstance(detail, dict):
            continue
        codes.append(str(detail.get("reason", "")))
        violations = detail.get("violations")
        quotas = [v for v in violations if isinstance(v, dict)] if isinstance(violations, list) else []
        codes += (str(quota.get("quotaId", "")) for quota in quotas)
        if "retryDelay" in detail:
            hint = parse_retry_after(str(detail["retryDelay"]))
    headers = getattr(error.response, "headers", {})
    if hint is None:
        hint = parse_retry_after(headers.get("retry-after"))
    return failed(
        classify(error.code, " ".join(codes), error.message or ""),
        f"HTTP {error.code} {error.status or ''}: {error.message}",
        status=error.code,
        retry_after=hint,
    )
