"""One zygote from start to end: the process, the socket to it, and its scratch folder."""

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
from pathlib import Path
from typing import IO, Any, Final

from synth_core.errors import EnvironmentFault, UsageError
from synth_core.validation.sandbox.files import anonymous_file, contents

_PASSED_ON: Final = (
    "PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CC", "CXX", "CUDA_HOME", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""The only variables of our environment that the zygote gets: no key, no PREFECT_*, no SYNTH_*."""
_LONGEST: Final = 64 * 2**20
"""Most bytes of a file that the zygote sends."""
_FILES: Final = 64
"""Most files in one read."""


class Life:
    """One zygote from start to end, and the thread that starts it and listens to it.

    The kernel kills the zygote when the thread that started it ends. So this thread does nothing else.
    """

    def __init__(
        self,
        module: str,
        configuration: dict[str, Any],
        hash_seed: int,
        heard: Callable[[Life, dict[str, Any]], None],
        died: Callable[[Life, str], None],
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
        """A dead zygote is no error here. Its end is noticed elsewhere, and its errands run again."""
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
        """Ask the zygote to end, and wait for it. One that is still starting does not listen: kill it."""
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
        """However this thread ends, those who wait get an answer; also after a fault in this class."""
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
        """Run a zygote to its end; return the last that it printed."""
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
                    if self._closing:  # `close` was called before the socket existed
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
    """The messages of the zygote, with the contents of their files, until its socket closes."""
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
    """The contents of a file; empty if it is larger than any file that our own code writes."""
    with os.fdopen(file, "rb"):
        try:
            return contents(file, _LONGEST)
        except ValueError:
            return b""


def _start(module: str, hash_seed: int, channel: socket.socket, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A Python with almost no environment, in a session of its own, so the terminal's signals miss it."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["LOGNAME"] = "synth"  # torch asks for a name, and the sandbox hides the file that has it
    environment["PYTHONHASHSEED"] = str(hash_seed)
    environment["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # else forks could not use the GPU
    # malloc with huge pages: a fork that compiles has a quarter fewer page faults (measured).
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
    """A folder for one zygote. First removes the folders that killed owners left."""
    prefix = f"synth-{os.getuid()}-"
    for old in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):  # another process removes it, too
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
    """A lock on the folder, held until it is closed or this process ends; None if another holds it."""
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
