"""One confined process as its supervisor sees it: start, watch, kill, account for."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from synth_core.validation.evidence import Observation
from synth_core.validation.sandbox import linux
from synth_core.validation.sandbox.confine import SCRATCH_MB, Limits, Sandbox, confine
from synth_core.validation.sandbox.seccomp import Profile

EVIDENCE: Final = 3
CHANNEL: Final = 4
"""Descriptors that a confined process finds open, besides its output."""
HARNESS_FAILED: Final = 70
"""Exit code of a process whose own frame, not the program, raised."""

OUTPUT_TAIL: Final = 4096
OUTPUT_CAP: Final = 16 * 2**20
WATCH_SECONDS: Final = 0.05


@dataclass
class Process:
    """A living confined process."""

    pid: int
    slot: int
    limits: Limits
    output: int
    started: float
    deadline: float
    peak_kb: int = 0
    timed_out: bool = False
    out_of_memory: bool = False
    violation: str = ""
    paused_at: float = 0.0
    _tail: bytearray = field(default_factory=bytearray)
    _printed: int = 0

    def drain(self) -> None:
        """Take what it printed; end it if that is absurdly much."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.output, 65536):
                self._printed += len(chunk)
                self._tail = (self._tail + chunk)[-OUTPUT_TAIL:]
                if self._printed > OUTPUT_CAP:
                    self.violate("it printed more than 16 MiB")
                    return

    def watch(self, now: float, scratch: str = "") -> None:
        """End it where it is over its time, its memory or (where nothing else caps that) its disk."""
        if now > self.deadline and not self.paused_at:
            self.timed_out = True
            self.kill()
        self.peak_kb = max(self.peak_kb, resident_kb(self.pid) - self.limits.born_resident_kb)
        if self.peak_kb > self.limits.data_mb * 1024:
            self.out_of_memory = True
            self.kill()
        if scratch and _folder_bytes(scratch) > SCRATCH_MB * 2**20:
            self.violate(f"it wrote more than {SCRATCH_MB} MiB to its scratch folder")

    def pause(self) -> None:
        """Stop its clock: it waits for its supervisor."""
        self.paused_at = time.monotonic()

    def resume(self) -> None:
        waited = time.monotonic() - self.paused_at
        self.deadline += waited
        self.started += waited
        self.paused_at = 0.0

    def kill(self) -> None:
        """Kill it and all that it started in its session."""
        for end in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                end(self.pid, signal.SIGKILL)

    def reaped(self, status: int) -> Observation:
        """What is to be said of it, now that it is dead. Whatever it left in its session dies too."""
        self.kill()
        self.drain()
        os.close(self.output)
        died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        if died == signal.SIGSYS and not self.violation:
            self.violation = (
                "it made a system call that the sandbox forbids (a socket, a process, a mount, …)"
            )
        if died == signal.SIGXCPU:
            self.timed_out = True
        return Observation(
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=died,
            timed_out=self.timed_out,
            out_of_memory=self.out_of_memory,
            violation=self.violation,
            output=self._tail.decode(errors="replace"),
            seconds=time.monotonic() - self.started,
            peak_mb=max(0, self.peak_kb) / 1024,
        )

    def violate(self, violation: str) -> None:
        """End it for breaking out of line."""
        self.violation = violation
        self.kill()


def start(
    box: Sandbox,
    profile: Profile,
    limits: Limits,
    slot: int,
    body: Callable[[], None],
    *,
    evidence: int | None = None,
    channel: int | None = None,
    readable: tuple[str, ...] = (),
) -> Process:
    """Fork a process that confines itself, runs `body` and exits; every other descriptor is closed in it."""
    receive, send = os.pipe()
    os.set_blocking(receive, False)
    parent, now = os.getpid(), time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if linux.LINUX:
                linux.die_with_parent(parent)
            _keep_only(send, evidence, channel)
            confine(box, profile, limits, slot, readable)
            body()
            os._exit(0)
        except BaseException:
            os.write(2, traceback.format_exc()[-OUTPUT_TAIL:].encode(errors="replace"))
        finally:
            os._exit(HARNESS_FAILED)
    os.close(send)
    return Process(pid, slot, limits, receive, now, now + limits.seconds)


def anonymous_file(name: str) -> int:
    """Descriptor of a fresh file that no path leads to; the caller closes it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def open_evidence() -> BinaryIO:
    """The evidence file, inside a confined process."""
    return os.fdopen(EVIDENCE, "wb", closefd=False)


def resident_kb(pid: int) -> int:
    """Resident memory of a process that is not backed by files, in KiB; 0 where that cannot be known."""
    return _status_kb(pid, ("RssAnon:", "RssShmem:"))


def data_kb(pid: int) -> int:
    """What the kernel counts against the limit on private memory, in KiB."""
    return _status_kb(pid, ("VmData:",))


def _status_kb(pid: int, fields: tuple[str, ...]) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith(fields))
    except OSError:
        return 0


def _folder_bytes(folder: str) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total


def _keep_only(output: int, evidence: int | None, channel: int | None) -> None:
    """Set up descriptors 0 to 4 of a confined process and close all others."""
    nothing = os.open(os.devnull, os.O_RDWR)
    wanted = [nothing, output, output, evidence, channel]
    high = [fcntl.fcntl(nothing if fd is None else fd, fcntl.F_DUPFD, 64) for fd in wanted]
    for target, source in enumerate(high):
        os.dup2(source, target)
    os.closerange(len(wanted), os.sysconf("SC_OPEN_MAX"))
