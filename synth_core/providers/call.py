"""One call to a provider: what is asked, what comes back, and how odd answers are classified.

A provider is one async context manager function in one module and one row in table.py:

    @asynccontextmanager
    async def connect(connection: Connection) -> AsyncIterator[Complete]: ...

It opens its client and yields `complete(request) -> reply`, which never raises for what a server did: each
answer is mapped to one `Outcome`. Retries, limits, budgets and caches are dispatch's business, never a
provider's. A provider of your own needs only `async def complete(request: Request) -> Reply`, given as
`--model-name package.module:complete`.
"""

from __future__ import annotations

import re
import ssl
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import CodeType
from typing import Any

from pydantic import SecretStr

from synth_core.errors import UsageError
from synth_core.records import GpuSizes, Outcome, Usage
from synth_core.settings import ProviderSettings

# The server answered, whatever it said.
ANSWERED = frozenset({Outcome.OK, Outcome.TRUNCATED, Outcome.EMPTY, Outcome.BLOCKED})
# Asking again may help: at once after a pause, and in a later run.
RETRYABLE = frozenset(
    {Outcome.RATE_LIMITED, Outcome.TRANSIENT, Outcome.TIMEOUT, Outcome.BAD_RESPONSE, Outcome.EMPTY}
)
# Every further call would end alike.
HOPELESS = frozenset({Outcome.AUTH, Outcome.QUOTA, Outcome.UNKNOWN_MODEL})

# OpenAI's words for what a status says, wherever no status is told.
_ERROR_WORDS = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "insufficient_quota": 402,
    "model_not_found": 404,
    "rate_limit": 429,
    "invalid_request_error": 400,
}

MAX_ERROR = 500  # characters of a server's message that are kept


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where calls go and with which key; `workers` is how many programs may be written at once here."""

    settings: ProviderSettings
    key: SecretStr | None
    workers: int

    def ssl_context(self) -> ssl.SSLContext | None:
        """Trust in the user's own CA, or None for the SDK's default (the system's certificates)."""
        return load_ca(self.settings.ca_bundle)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question. `schema`, where given, is the JSON schema that the answer has to follow."""

    system: str
    text: str
    operators: tuple[str, ...]
    model: str
    temperature: float
    max_tokens: int
    seed: int
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How one call ended.

    error: the server's own message, trimmed; empty where all went well.
    status: HTTP status, 0 where there was none.
    retry_after: seconds the server asked us to wait, None where it did not say.
    seconds: how long the call took; dispatch fills it in.
    raised: the provider's own code raised, whatever the server did.
    """

    outcome: Outcome
    text: str = ""
    serving_model: str = ""
    finish_reason: str = ""
    usage: Usage = field(default_factory=Usage)
    sizes: GpuSizes | None = None
    error: str = ""
    status: int = 0
    retry_after: float | None = None
    seconds: float = 0.0
    raised: bool = False


Complete = Callable[[Request], Awaitable[Reply]]


def load_ca(path: str) -> ssl.SSLContext | None:
    """Trust in the CA of a PEM file, None where no file is named; `UsageError` where it cannot be read."""
    if not path:
        return None
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot read the CA bundle {path}: {error}") from None


def failed(outcome: Outcome, error: object, **fields: Any) -> Reply:
    """A reply without an answer; the message is put on one line and trimmed."""
    text = " ".join(str(error).split()) or type(error).__name__
    return Reply(outcome=outcome, error=text[:MAX_ERROR], **fields)


def raised(error: BaseException, code: CodeType | None = None) -> Reply:
    """The reply of a call whose code raised: file and line, then the exception.

    code: of the function that was called; its file's innermost line is named, not the one of a library
        below, and its first line where it never began. Without it the innermost line of all is named.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    if own or not code:
        where = (own or frames)[-1]
        place = f"{where.filename}:{where.lineno}"
    else:
        place = f"{code.co_filename}:{code.co_firstlineno}"
    return failed(Outcome.BAD_RESPONSE, f"{place}: {type(error).__name__}: {error}", raised=True)


def classify(status: int, code: str, message: str) -> Outcome:
    """The outcome that an HTTP error status means, with the help of the server's error code and message.

    A bad Gemini key is a 400, an exhausted OpenAI account and a spent daily quota are 429s, so the status
    alone does not tell.
    """
    said = f"{code} {message}".lower()
    if status == 401 or any(
        sign in said for sign in ("api_key_invalid", "api key not valid", "api key expired")
    ):
        return Outcome.AUTH
    spent = ["insufficient_quota", "perday", "credit balance", "spending limit"]
    if status != 429:  # Gemini's 429 for a minute's limit speaks of "billing details" as well
        spent.append("billing")
    if status == 402 or any(sign in said for sign in spent):
        return Outcome.QUOTA if status in {400, 402, 403, 429} else Outcome.TRANSIENT
    if status == 403:
        return Outcome.AUTH
    if status == 404:
        return Outcome.UNKNOWN_MODEL
    if status == 429:
        return Outcome.RATE_LIMITED
    if status in {408, 409, 425} or status >= 500:
        return Outcome.TRANSIENT
    return Outcome.BAD_REQUEST


def hidden_error(error: object) -> tuple[int, dict[str, Any]]:
    """What a gateway put into a 200 as `error`, an object or a mere message: the HTTP status that it stands
    for, and the object. A code that is no status and no known word is taken for a passing trouble."""
    body: dict[str, Any] = error if isinstance(error, dict) else {"message": str(error)}
    code = str(body.get("code") or body.get("status") or "")
    if code.isdecimal() and 400 <= int(code) < 600:
        return int(code), body
    words = f"{code} {body.get('type') or ''}"
    return next((status for word, status in _ERROR_WORDS.items() if word in words), 500), body


def parse_retry_after(value: str | None) -> float | None:
    """Seconds in a `Retry-After` header (number or HTTP date) or a `12.5s` duration; None if unreadable."""
    if not value:
        return None
    try:
        return max(0.0, float(value.strip().removesuffix("s")))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def scrub(text: str, key: SecretStr | None) -> str:
    """Take every word out of a server's message that holds a part of the key, masked ones included."""
    secret = key.get_secret_value() if key else ""
    parts = {secret[i : i + 6] for i in range(len(secret) - 5)}

    def clean(match: re.Match[str]) -> str:
        word = match[0]
        return "[key]" if "**" in word or any(part in word for part in parts) else word

    return re.sub(r"[^\s\"'`,;()<>]+", clean, text)
