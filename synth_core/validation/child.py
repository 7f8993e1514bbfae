"""The client of a zygote: starts it when it is needed, starts it again if it dies, and sends it lines.

A line is JSON and never holds the text of a program. Texts travel beside the line, as files in memory, and
the zygote hands them on unread. The reason: every program that it forks can find what lies in its memory.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from synth_core.errors import EnvironmentFault
from synth_core.records import Category
from synth_core.validation.ends import failure
from synth_core.validation.life import Life

_ATTEMPTS: Final = 2
_DEATHS: Final = 10
"""If so many zygotes in a row die before the first answer, no program is at fault."""
_CLOSED: Final = "the validation engine was closed"

Answer = dict[str, Any]
"""A message of the zygote, with its `files` as bytes."""


@dataclass
class _Errand:
    """line: JSON for the zygote. files: what is sent beside it."""

    line: bytes
    files: tuple[bytes, ...]
    answer: Future[Answer] = field(default_factory=Future)
    attempts: int = 0
    sent: bool = False


class WarmChild:
    """Thread-safe. configuration: the fields of zygote.Configuration except scratch and parent.

    hash_seed: decides the order of sets in the zygote. window: how many errands the zygote may hold at once;
    each keeps files open there.
    """

    def __init__(
        self, module: str, configuration: dict[str, Any], hash_seed: int = 0, window: int = 64
    ) -> None:
        self._module, self._configuration = module, configuration
        self._hash_seed, self._window = hash_seed, window
        self._lock = threading.Lock()
        self._life: Life | None = None
        self._closed = False
        self._errands: dict[int, _Errand] = {}
        self._unsent: deque[int] = deque()
        self._serial = 0
        self._deaths = 0

    def facts(self) -> dict[str, Any]:
        """What the zygote reported when it was ready. Starts it. Raises what a failed start raises."""
        with self._lock:
            life = self._alive()
        return life.ready.result()

    def submit(self, job: dict[str, Any], *files: bytes) -> Future[Answer]:
        """Hand over a job. An answer comes even if the job ends the zygote."""
        while True:
            with self._lock:
                life = self._alive()
            life.ready.result()  # outside the lock: `close` must not wait for anything slow
            with self._lock:
                if self._life is life:
                    self._serial += 1
                    line = json.dumps({"id": self._serial, "files": len(files), **job}).encode() + b"\n"
                    errand = self._errands[self._serial] = _Errand(line, files)
                    self._unsent.append(self._serial)
                    break
        self._send(life)
        return errand.answer

    def _send(self, life: Life) -> None:
        """Send as many errands as the window allows."""
        while True:
            with self._lock:
                if self._life is not life or not self._unsent:
                    return
                if sum(errand.sent for errand in self._errands.values()) >= self._window:
                    return
                errand = self._errands[self._unsent.popleft()]
                errand.sent = True
            life.send(errand.line, errand.files)

    def close(self) -> None:
        """End the zygote for good. Open errands fail, and so does every later one."""
        with self._lock:
            self._closed = True
            life, self._life = self._life, None
            errands, self._errands = list(self._errands.values()), {}
            self._unsent.clear()
        # Before the wait below: a second interrupt may end this method while it waits for the zygote.
        for errand in errands:
            errand.answer.set_exception(EnvironmentFault(_CLOSED))
        if life:
            life.close()

    def _alive(self) -> Life:
        if self._closed:
            raise EnvironmentFault(_CLOSED)
        if self._life is None:
            self._life = Life(self._module, self._configuration, self._hash_seed, self._heard, self._died)
        return self._life

    def _heard(self, life: Life, message: dict[str, Any]) -> None:
        with self._lock:
            if message.get("started"):
                if errand := self._errands.get(message["id"]):
                    errand.attempts += 1
                return
            self._deaths = 0
            errand = self._errands.pop(message["id"], None)
        if errand:
            errand.answer.set_result(message)
        self._send(life)

    def _died(self, life: Life, last_words: str) -> None:
        """Give the open errands to a new zygote. An errand that was running twice gets a crash as its answer.

        After too many deaths in a row all errands fail. Who takes an errand out of `_errands` answers it, so
        each is answered once.
        """
        with self._lock:
            if self._life is not life:
                return
            self._life = None
            if life.ready.exception():  # those who wait for `ready` get this error
                return
            self._deaths += 1
            hopeless = self._deaths >= _DEATHS
            crashed = [n for n, e in self._errands.items() if e.attempts >= _ATTEMPTS and not hopeless]
            lost = [self._errands.pop(number) for number in crashed]
            for errand in self._errands.values():
                errand.sent = False
            self._unsent = deque(self._errands)
            heir = self._alive() if self._errands and not hopeless else None
        for errand in lost:
            errand.answer.set_result({"judgement": _crash(last_words), "files": []})
        if hopeless:
            self._give_up(EnvironmentFault(f"the validator died {_DEATHS} times in a row: {last_words}"))
        elif heir and (error := heir.ready.exception()):
            self._give_up(error)
        elif heir:
            self._send(heir)

    def _give_up(self, error: BaseException) -> None:
        """Fail all open errands."""
        with self._lock:
            waiting, self._errands = list(self._errands.values()), {}
            self._unsent.clear()
        for errand in waiting:
            errand.answer.set_exception(error)


def _crash(last_words: str) -> dict[str, Any]:
    detail = f"the validator died of it twice{last_words and ': ' + last_words}"
    return failure(Category.CRASH, detail, check="crash")
