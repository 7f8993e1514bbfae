"""Call one of our own functions on a text that nobody has checked yet, in a child process with limits.

A parser recurses and takes memory as its text demands, so a hostile text may end the process that reads it.
Here that process is a child. It runs nothing of the text, and takes and gives plain JSON. If it dies or goes
over its limits the caller gets `Unreadable`, and makes it the verdict of that one text.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

SECONDS: Final = 20.0
"""CPU seconds that one call may take. Wall time may be ten times that."""
MEMORY_MB: Final = 1536
LONGEST: Final = 64 * 2**20
"""Bytes of one message, in either direction."""
_HEAD: Final = 4
_PACKAGE: Final = "synth_core."


class Unreadable(Exception):
    """The text took too much time or memory, or the function raised on it. One printable line."""


def limited(function: str, *values: Any) -> Any:
    """The result of `module:function` of this package on JSON values; raises Unreadable.

    Safe under threads: a call takes an idle child, or starts one.
    """
    message = json.dumps([function, values]).encode()
    if len(message) > LONGEST:
        raise Unreadable(f"the text is longer than {LONGEST >> 20} MiB")
    reader = _POOL.take()
    try:
        answer = reader.ask(message)
    except BaseException:
        reader.close()
        raise
    _POOL.give_back(reader)
    if "error" in answer:
        raise Unreadable(answer["error"])
    return answer["value"]


class _Reader:
    """One child, as its owner sees it."""

    def __init__(self) -> None:
        environment = {
            n: os.environ[n] for n in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if n in os.environ
        }
        environment |= {
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",  # numpy's threads would reserve more memory than the limit
        }
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", __spec__.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        assert self._child.stdin
        assert self._child.stdout
        self._to, self._from = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._to, False)
        self._deadline = 0.0

    def ask(self, message: bytes) -> dict[str, Any]:
        self._deadline = time.monotonic() + 10 * SECONDS
        try:
            self._send(len(message).to_bytes(_HEAD, "big") + message)
            length = int.from_bytes(self._receive(_HEAD), "big")
            if length > LONGEST:
                raise Unreadable("what was read of the text is too long")
            answer: dict[str, Any] = json.loads(self._receive(length))
        except OSError:
            raise Unreadable(self._last_words()) from None
        return answer

    def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(self._to, select.POLLOUT)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._to, rest) :]

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            self._wait(self._from, select.POLLIN)
            part = os.read(self._from, min(2**20, length - len(data)))
            if not part:
                raise BrokenPipeError
            data += part
        return bytes(data)

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
            raise TimeoutError

    def _last_words(self) -> str:
        """Why there is no answer: nothing but its limits kills this child."""
        self.close()
        return f"reading the text takes more than {SECONDS:g} CPU seconds or {MEMORY_MB} MiB"

    def close(self) -> None:
        self._child.kill()
        for stream in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self._child.wait()


class _Pool:
    """The idle children of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Reader] = []

    def take(self) -> _Reader:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Reader()

    def give_back(self, reader: _Reader) -> None:
        with self._lock:
            if len(self._idle) < 2:
                self._idle.append(reader)
                return
        reader.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()

    def forget(self) -> None:
        """After a fork: the children are the parent's to talk to, and the lock may be held for ever."""
        self._lock, self._idle = threading.Lock(), []


_POOL = _Pool()
atexit.register(_POOL.close)
os.register_at_fork(after_in_child=_POOL.forget)


def main() -> None:
    """The child: answer until stdin ends."""
    for limit, value in ((resource.RLIMIT_DATA, MEMORY_MB * 2**20), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    answers, messages = os.dup(1), sys.stdin.buffer
    os.dup2(2, 1)
    while head := messages.read(_HEAD):
        used = resource.getrusage(resource.RUSAGE_SELF)
        allowed = int(used.ru_utime + used.ru_stime + SECONDS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        data = _answer(messages.read(int.from_bytes(head, "big")))
        rest = memoryview(len(data).to_bytes(_HEAD, "big") + data)
        while rest:
            rest = rest[os.write(answers, rest) :]


def _answer(message: bytes) -> bytes:
    try:
        name, values = json.loads(message)
        module, _, function = name.partition(":")
        if not module.startswith(_PACKAGE):
            raise ValueError(name)
        value = getattr(importlib.import_module(module), function)(*values)
        return json.dumps({"value": value}).encode()
    except Exception as error:
        words = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
        return json.dumps({"error": f"{type(error).__name__}: {words[:300]}"}).encode()


if __name__ == "__main__":
    main()
