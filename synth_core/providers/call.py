"""One call to a provider: the request, the reply, and how errors map to outcomes.

A provider is one async context manager function in one module and one row in table.py:

    @asynccontextmanager
    async def connect(connection: Connection) -> AsyncIterator[Complete]: ...

`connect` opens the client and yields `complete(request) -> reply`. `complete` never raises for what a server
does: it maps each answer to one `Outcome`. Retries, limits, budgets and caches are the dispatcher's work; a
provider does none of them. A provider of your own needs only `async def complete(request: Request) -> Reply`;
name it by `--model-name package.module:complete`.
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

# The server gave an answer, complete or not.
ANSWERED = frozenset({Outcome.OK, Outcome.TRUNCATED, Outcome.EMPTY, Outcome.BLOCKED})
# Asking again may help: after a pause, or in a later run.
RETRYABLE = frozenset(
    {Outcome.RATE_LIMITED, Outcome.TRANSIENT, Outcome.TIMEOUT, Outcome.BAD_RESPONSE, Outcome.EMPTY}
)
# Every further call would fail in the same way.
HOPELESS = frozenset({Outcome.AUTH, Outcome.QUOTA, Outcome.UNKNOWN_MODEL})

# OpenAI's error codes and the HTTP statuses they mean, for answers that carry no status.
_ERROR_WORDS = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "insufficient_quota": 402,
    "model_not_found": 404,
    "rate_limit": 429,
    "invalid_request_error": 400,
}

MAX_ERROR = 500  # characters; longer error messages are cut


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What `connect` needs to reach the provider.

    workers: how many programs this machine may write at once, for providers with `writes_here`.
    """

    settings: ProviderSettings
    key: SecretStr | None
    workers: int

    def ssl_context(self) -> ssl.SSLContext | None:
        """Trusts the user's own CA. None means the SDK's default: the system's certificates."""
        return load_ca(self.settings.ca_bundle)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to a model.

    schema: the JSON schema that the answer must follow, or None for free text.
    """

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

    error: the server's own message, cut to `MAX_ERROR` characters. Empty on success.
    status: HTTP status, or 0 if there was none.
    retry_after: seconds that the server asks us to wait, or None.
    seconds: duration of the call. The dispatcher fills it in.
    raised: the provider's own code raised an exception.
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
    """Trusts the CA of a PEM file. None if `path` is empty. Raises `UsageError` for an unreadable file."""
    if not path:
        return None
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot read the CA bundle {path}: {error}") from None


def failed(outcome: Outcome, error: object, **fields: Any) -> Reply:
    """A reply without an answer. The message is joined to one line and cut to `MAX_ERROR` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return Reply(outcome=outcome, error=text[:MAX_ERROR], **fields)


def raised(error: BaseException, code: CodeType | None = None) -> Reply:
    """The reply of a call that raised an exception. Its error names file and line, then the exception.

    code: the code of the function that was called. The error then names the innermost line in that
        function's file, not in a library below it; or the function's first line if it never started.
        None: the error names the innermost line of the traceback.
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
    """Map an HTTP error status, with the server's error code and message, to an outcome.

    The status alone is not enough: Gemini answers 400 to a bad key, and servers answer 429 both to too many
    calls and to an exhausted account or daily quota.
    """
    said = f"{code} {message}".lower()
    if status == 401 or any(
        sign in said for sign in ("api_key_invalid", "api key not valid", "api key expired")
    ):
        return Outcome.AUTH
    spent = ["insufficient_quota", "perday", "credit balance", "spending limit"]
    if status != 429:  # Gemini's 429 for the limit per minute mentions "billing details" too
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
    """Read an `error` that a gateway sent with status 200. Returns the HTTP status it means, and its object.

    error: an object, or only a message.
    A code that is neither a status nor a known word becomes 500, a temporary problem.
    """
    body: dict[str, Any] = error if isinstance(error, dict) else {"message": str(error)}
    code = str(body.get("code") or body.get("status") or "")
    if code.isdecimal() and 400 <= int(code) < 600:
        return int(code), body
    words = f"{code} {body.get('type') or ''}"
    return next((status for word, status in _ERROR_WORDS.items() if word in words), 500), body


def parse_retry_after(value: str | None) -> float | None:
    """Seconds in a `Retry-After` header (a number or an HTTP date) or a duration such as `12.5s`.

    Returns None if the value cannot be read.
    """
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
    """Replace every word that contains a part of the key by `[key]`, in a message from a server.

    A part is any 6 characters in a row. Words with `**` are replaced too: servers mask keys like that.
    """
    secret = key.get_secret_value() if key else ""
    parts = {secret[i : i + 6] for i in range(len(secret) - 5)}

    def clean(match: re.Match[str]) -> str:
        word = match[0]
        return "[key]" if "**" in word or any(part in word for part in parts) else word

    return re.sub(r"[^\s\"'`,;()<>]+", clean, text)
