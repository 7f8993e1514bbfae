"""The zygote as its owner sees it: started when needed, started anew when it dies, spoken to in lines.

A line is JSON that holds no text of a program. Texts travel beside it, as files in memory that the zygote
hands on unread: what lies in its memory, every program that it forks can find.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from synth_core.errors import EnvironmentFault, UsageError
from synth_core.records import Category
from synth_core.validation.ends import failure
from synth_core.validation.sandbox.process import anonymous_file, contents

_PASSED_ON: Final = (
    "PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CC", "CXX", "CUDA_HOME", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""All of our environment that the zygote may see: no key, no PREFECT_*, no SYNTH_*."""
_ATTEMPTS: Final = 2
_DEATHS: Final = 10
"""So many zygotes in a row that died before they judged anything are no program's fault."""
_CLOSED: Final = "the validation engine was closed"
_LONGEST: Final = 64 * 2**20
"""Bytes of a file that the zygote sends."""
_FILES: Final = 64
"""Most files of one read."""

Answer = dict[str, Any]
"""A message of the zygote, with its `files` as bytes."""


@dataclass
class _Errand:
    """line: JSON for the zygote. files: what goes beside it."""

    line: bytes
    files: tuple[bytes, ...]
    answer: Future[Answer] = field(default_factory=Future)
    attempts: int = 0
    sent: bool = False


class WarmChild:
    """Thread-safe. `configuration` is what zygote.Configuration takes, but for scratch and parent.

    hash_seed: decides on the order of sets there. window: errands that the zygote may hold at once; each
    holds files open there.
    """

    def __init__(
        self, module: str, configuration: dict[str, Any], hash_seed: int = 0, window: int = 64
    ) -> None:
        self._module, self._configuration = module, configuration
        self._hash_seed, self._window = hash_seed, window
        self._lock = threading.Lock()
        self._life: _Life | None = None
        self._closed = False
        self._errands: dict[int, _Errand] = {}
        self._unsent: deque[int] = deque()
        self._serial = 0
        self._deaths = 0

    def facts(self) -> dict[str, Any]:
        """What the zygote said of itself when it was ready. Starts it; raises what a failed start raises."""
        with self._lock:
            life = self._alive()
        return life.ready.result()

    def submit(self, job: dict[str, Any], *files: bytes) -> Future[Answer]:
        """Hand over a job. Its answer comes even if the zygote dies of it."""
        while True:
            with self._lock:
                life = self._alive()
            life.ready.result()  # outside the lock, like all that takes time: `close` must not wait for it
            with self._lock:
                if self._life is life:
                    self._serial += 1
                    line = json.dumps({"id": self._serial, "files": len(files), **job}).encode() + b"\n"
                    errand = self._errands[self._serial] = _Errand(line, files)
                    self._unsent.append(self._serial)
                    break
        self._send(life)
        return errand.answer

    def _send(self, life: _Life) -> None:
        """Send what the window allows."""
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
        """End the zygote, for good. What it has not answered fails, and so does what is still asked of it."""
        with self._lock:
            self._closed = True
            life, self._life = self._life, None
            errands, self._errands = list(self._errands.values()), {}
            self._unsent.clear()
        # First: a second interrupt may end this while it waits for the zygote.
        for errand in errands:
            errand.answer.set_exception(EnvironmentFault(_CLOSED))
        if life:
            life.close()

    def _alive(self) -> _Life:
        if self._closed:
            raise EnvironmentFault(_CLOSED)
        if self._life is None:
            self._life = _Life(self._module, self._configuration, self._hash_seed, self._heard, self._died)
        return self._life

    def _heard(self, life: _Life, message: dict[str, Any]) -> None:
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

    def _died(self, life: _Life, last_words: str) -> None:
        """Run what was running once more in another. What dies again is a crash, until too many have died.

        Whoever takes an errand out of `_errands` answers it, so that each is answered once.
        """
        with self._lock:
            if self._life is not life:
                return
            self._life = None
            if life.ready.exception():  # whoever waits for it to be ready deals with that
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
        """Fail all that waits."""
        with self._lock:
            waiting, self._errands = list(self._errands.values()), {}
            self._unsent.clear()
        for errand in waiting:
            errand.answer.set_exception(error)


class _Life:
    """One zygote from start to end, and the thread that starts it and listens to it.

    The kernel kills the zygote when the thread that started it ends, so that thread does nothing else.
    """

    def __init__(
        self,
        module: str,
        configuration: dict[str, Any],
        hash_seed: int,
        heard: Callable[[_Life, dict[str, Any]], None],
        died: Callable[[_Life, str], None],
    ) -> None:
        self.ready: Future[dict[str, Any]] = Future()
        self._module, self._configuration, self._hash_seed = module, configuration, hash_seed
        self._heard, self._died = heard, died
        self._sending = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._live, name=f"{module} reader", daemon=True)
        self._thread.start()

    def send(self, line: bytes, files: tuple[bytes, ...] = ()) -> None:
        """A dead zygote is no error here: its end is noticed, and its errands are run anew."""
        descriptors = [anonymous_file("text", data) for data in files]
        try:
            with self._sending, contextlib.suppress(OSError, ValueError):
                assert self._socket
                sent = socket.send_fds(self._socket, [line], descriptors)
                self._socket.sendall(line[sent:])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def close(self) -> None:
        """Ask the zygote to end and wait for that; one that is still starting would not listen."""
        with self._sending:
            self._closing = True
            self._hang_up()
        if self._process and not self.ready.done():
            self._process.kill()
        self._thread.join()

    def _hang_up(self) -> None:
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def _live(self) -> None:
        """Whatever ends this thread, those who wait hear of it: a fault of ours in here too."""
        words = ""
        try:
            words = self._serve()
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            raise
        finally:
            if not self.ready.done():
                self.ready.set_exception(EnvironmentFault(f"the validator did not start: {words}"))
            self._died(self, words.splitlines()[-1] if words else "")

    def _serve(self) -> str:
        """Run a zygote to its end; return its last words."""
        with _scratch() as scratch, tempfile.TemporaryFile() as log:
            configuration = {**self._configuration, "scratch": scratch, "parent": os.getpid()}
            ours, theirs = socket.socketpair()
            with ours:
                try:
                    process = _start(self._module, self._hash_seed, theirs, log)
                except OSError as error:
                    return str(error)
                finally:
                    theirs.close()
                with self._sending:
                    self._process, self._socket = process, ours
                    if self._closing:  # before there was anything to close
                        self._hang_up()
                self.send(json.dumps(configuration).encode() + b"\n")
                for message in _messages(ours):
                    self._listen(message)
                process.wait()
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
            return log.read().decode(errors="replace").strip()

    def _listen(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            kind = UsageError if message["usage"] else EnvironmentFault
            self.ready.set_exception(kind(message["failed"]))
        elif "ready" in message:
            self.ready.set_result(message["ready"])
        else:
            self._heard(self, message)


def _messages(channel: socket.socket) -> Iterator[dict[str, Any]]:
    """What the zygote says, with the contents of the files beside it, until it is gone."""
    data, files = b"", deque[int]()
    while True:
        try:
            part, more, _, _ = socket.recv_fds(channel, 2**20, _FILES)
        except OSError:
            part, more = b"", []
        if not part:  # what it was killed in the middle of is no message
            for file in files:
                os.close(file)
            return
        files.extend(more)
        *lines, data = (data + part).split(b"\n")
        for line in lines:
            message = json.loads(line)
            taken = [files.popleft() for _ in range(message.get("files", 0))]
            yield message | {"files": [_read(file) for file in taken]}


def _read(file: int) -> bytes:
    """Empty where there is more than anything of ours writes."""
    with os.fdopen(file, "rb"):
        try:
            return contents(file, _LONGEST)
        except ValueError:
            return b""


def _start(module: str, hash_seed: int, channel: socket.socket, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A Python with a bare environment, away from the terminal's signals."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["PYTHONHASHSEED"] = str(hash_seed)
    environment["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # or looking for a GPU would forbid forks to use it
    # Huge pages where malloc grows: a fork that compiles takes a quarter fewer page faults (measured).
    environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=channel.fileno(),
        stdout=log,
        stderr=log,
        env=environment,
        cwd="/",
        start_new_session=True,
    )


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A folder for one zygote. What a killed owner left behind is swept away by the next."""
    prefix = f"synth-{os.getuid()}-"
    for old in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):  # another one sweeps, too
            if old.stat().st_uid == os.getuid() and (handle := _locked(old)) is not None:
                shutil.rmtree(old, ignore_errors=True)
                os.close(handle)
    folder = tempfile.mkdtemp(prefix=prefix)
    handle = _locked(Path(folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _locked(folder: Path) -> int | None:
    """A lock on the folder, held until it is closed or its process dies; None where another holds it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _crash(last_words: str) -> dict[str, Any]:
    detail = f"the validator died of it twice{last_words and ': ' + last_words}"
    return failure(Category.CRASH, detail, check="crash")
