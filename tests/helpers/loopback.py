"""A provider on this machine: speaks both wire formats over a real socket, well or badly as it is told.

with Loopback(lambda request: Act(body=answer(request.wire, "hello"))) as server:
    Settings(model_name="openai", provider={"base_url": server.base_url("openai")})
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

_CHUNK = 65536


@dataclass
class Seen:
    """One request as it arrived. `wire` is the protocol its path speaks."""

    number: int
    at: float
    wire: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes
    method: str
    taken: bool = False  # the client has read the whole answer

    @property
    def prompt(self) -> str:
        """The user's text."""
        if self.wire == "gemini":
            return str(self.body["contents"][0]["parts"][0]["text"])
        return str(self.body.get("prompt") or self.body["messages"][-1]["content"])


@dataclass
class Act:
    """What the server does with one request.

    delay: seconds before the first byte. drip: seconds before each byte of the body.
    cut: send only so many bytes of the answer (head included), then close the connection.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    cut: int | None = None


Behave = Callable[[Seen], Act]


class Loopback:
    """The server, on its own thread and a port of its own. `seen` lists every request."""

    def __init__(self, behave: Behave, *, tls: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self._tls = tls
        self.seen: list[Seen] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def base_url(self, wire: str) -> str:
        """What a client of that protocol takes as its base URL."""
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}" + ("" if wire == "gemini" else "/v1")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after another.

        An end that comes after an answer says whether that was read: a system that closes a socket with
        unread bytes in it, as after a kill, resets the connection; one without ends it in order.
        """
        answered: Seen | None = None
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    head = b""
                if answered:
                    answered.taken = True
                if not head or not (answered := await self._exchange(head, reader, writer)):
                    break
        writer.close()

    async def _exchange(
        self, read: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Seen | None:
        """Answer the request whose head was read; None where the connection is of no further use."""
        head = read.decode("latin-1").split("\r\n")
        method, path = head[0].split(" ")[:2]
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        wire = "openai" if "/chat/" in path else "completions" if "/completions" in path else "gemini"
        body = json.loads(raw) if raw[:1] == b"{" else {}
        seen = Seen(len(self.seen), time.monotonic(), wire, path, headers, body, raw, method)
        self.seen.append(seen)
        act = self.behave(seen)
        await _wait(act.delay)
        answer = act.body if isinstance(act.body, bytes) else json.dumps(act.body).encode()
        sent = {"content-type": "application/json", "content-length": str(len(answer)), **act.headers}
        lines = [f"HTTP/1.1 {act.status} X", *(f"{name}: {value}" for name, value in sent.items())]
        whole = "\r\n".join(lines).encode() + b"\r\n\r\n"
        if act.drip:
            writer.write(whole)
            for byte in answer:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(act.drip)
            return seen
        whole += answer
        if reader.at_eof():  # the client has gone meanwhile
            return None
        writer.write(whole if act.cut is None else whole[: act.cut])
        await writer.drain()
        return seen if act.cut is None else None


def _wait(seconds: float) -> Awaitable[None]:
    return asyncio.sleep(seconds)


def answer(wire: str, text: str | None, *, finish: str = "", usage: Any = None, model: str = "m-001") -> Any:
    """A good answer on the wire gemini, openai (chat) or completions; `finish` is the wire's own word."""
    if wire == "gemini":
        spent = {"promptTokenCount": 100, "candidatesTokenCount": 50, "thoughtsTokenCount": 7}
        parts = [] if text is None else [{"text": text}]
        return {
            "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": finish or "STOP"}],
            "usageMetadata": spent if usage is None else usage,
            "modelVersion": model,
        }
    counts: dict[str, Any] = {
        "prompt_tokens": 100,
        "completion_tokens": 57,
        "total_tokens": 157,
        "completion_tokens_details": {"reasoning_tokens": 7},
    }
    said = {"text": text} if wire == "completions" else {"message": {"role": "assistant", "content": text}}
    choice = {"index": 0, "finish_reason": finish or "stop", **said}
    return {
        "id": "c1",
        "object": "text_completion" if wire == "completions" else "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": counts if usage is None else usage,
    }


def error(
    wire: str, status: int, message: str, *, code: str = "", details: Any = (), headers: Any = None
) -> Act:
    """An error as the provider words it."""
    if wire == "gemini":
        body = {"error": {"code": status, "message": message, "status": code, "details": list(details)}}
    else:
        body = {"error": {"message": message, "type": "error", "code": code or None, "param": None}}
    return Act(status, body, headers or {})


def operators_in(prompt: str) -> list[str]:
    """The operators an `ordered` prompt asks for."""
    return re.findall(r"^\d+\. (\w+) ", prompt, re.MULTILINE)
