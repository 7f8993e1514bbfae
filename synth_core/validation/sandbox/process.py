"""One confined process as its supervisor sees it: start it, watch it, kill it, report its end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO, Final

from synth_core.validation.evidence import Observation
from synth_core.validation.sandbox import HARNESS_FAILED, linux, usage
from synth_core.validation.sandbox.confine import GROUP_SLACK_MB, SCRATCH_MB, Limits, Sandbox, confine
from synth_core.validation.sandbox.files import contents
from synth_core.validation.sandbox.seccomp import Profile

EVIDENCE: Final = 3
CHANNEL: Final = 4
PROGRAM: Final = 5
FRESH: Final = 6
"""Descriptors that are open in a confined process, besides its output."""
CAPTURED: Final = b"+"
"""All that a child ever says on its channel."""
MAX_PROGRAM: Final = 2**27

OUTPUT_TAIL: Final = 4096
OUTPUT_CAP: Final = 16 * 2**20
READS_AT_ONCE: Final = 16
WALL_FACTOR: Final = 10
"""Wall time may be this many times the limit of CPU time, because a process waits on a busy machine."""
WATCH_SECONDS: Final = 0.05


@dataclass
class Process:
    """A living confined process."""

    pid: int
    slot: int
    limits: Limits
    output: int
    started: float
    group: Callable[[], bool] = bool
    """Removes its control group; True if that ran out of memory."""
    evidence: tuple[int, ...] = ()
    """Files in memory that it writes to; they count as its memory."""
    peak_kb: int = 0
    timed_out: bool = False
    out_of_memory: bool = False
    violation: str = ""
    waits: bool = False
    """It waits for its supervisor, so its time is not counted."""
    has_children: bool = False
    """It may start processes and sleep while they work, so its sleep is not counted."""
    asleep: float = 0.0
    spent_before: float = 0.0
    """CPU seconds of earlier work, which are no longer counted."""
    _watched: float = 0.0
    _tail: bytearray = field(default_factory=bytearray)
    _printed: int = 0

    def drain(self) -> None:
        """Read a bounded part of what it printed; end it if it printed far too much."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(READS_AT_ONCE):
                chunk = os.read(self.output, 65536)
                if not chunk:
                    return
                self._printed += len(chunk)
                self._tail += chunk
                del self._tail[:-OUTPUT_TAIL]
                if self._printed > OUTPUT_CAP:
                    self.violate("it printed more than 16 MiB")
                    return

    def watch(self, now: float, scratch: str = "") -> None:
        """End it if it is over its time or memory, or over its disk if `scratch` is given.

        Its time is the CPU time, and the time that it slept. Waiting for a processor is neither.
        """
        seen = usage.seen(self.pid)
        if seen.sleeps and not self.waits and not self.has_children:
            self.asleep += min(now - (self._watched or self.started), 2 * WATCH_SECONDS)
        self._watched = now
        spent = self._computed() - self.spent_before + self.asleep
        if not self.waits and max(spent, (now - self.started) / WALL_FACTOR) > self.limits.seconds:
            self.timed_out = True
            self.kill()
        files_kb = sum(os.fstat(file).st_blocks // 2 for file in self.evidence)
        self.peak_kb = max(self.peak_kb, seen.resident_kb - self.limits.born_resident_kb + files_kb)
        if self.peak_kb > self.limits.data_mb * 1024:
            self.out_of_memory = True
            self.kill()
        if seen.threads > self.limits.processes:
            self.violate(f"it started more than {self.limits.processes} threads")
        if scratch and usage.folder_bytes(scratch) > SCRATCH_MB * 2**20:
            self.violate(f"it wrote more than {SCRATCH_MB} MiB to its scratch folder")

    def restart(self, seconds: float) -> None:
        """Count its time from zero, for another piece of work."""
        self.limits = replace(self.limits, seconds=seconds)
        self.started, self.asleep, self.waits = time.monotonic(), 0.0, False
        self.spent_before = self._computed()

    def _computed(self) -> float:
        return usage.cpu_seconds(self.pid) + (
            usage.seconds_of_children(self.pid) if self.has_children else 0.0
        )

    def kill(self) -> None:
        """Kill it and all processes of its session."""
        for end in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                end(self.pid, signal.SIGKILL)

    def reaped(self, status: int) -> Observation:
        """What the supervisor saw of it; it is dead. Also kills what it left in its session."""
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
        if self.group() and died == signal.SIGKILL:
            self.out_of_memory = True
        return Observation(
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=died,
            timed_out=self.timed_out,
            out_of_memory=self.out_of_memory,
            violation=self.violation,
            seconds=time.monotonic() - self.started,
            peak_mb=max(0, self.peak_kb) / 1024,
        )

    def last_words(self) -> bytes:
        """The end of what it printed. Erases it here, because it may hold parts of a text."""
        words = bytes(self._tail)
        self._tail[:] = bytes(len(self._tail))
        return words

    def violate(self, violation: str) -> None:
        """End it because it did what it must not do."""
        self.violation = self.violation or violation
        self.kill()


def start(
    box: Sandbox,
    profile: Profile,
    limits: Limits,
    slot: int,
    body: Callable[[], None],
    files: Sequence[int | None] = (),
    readable: tuple[str, ...] = (),
) -> Process:
    """Fork a process that confines itself, runs `body` and exits.

    files: its descriptors from 3 on. All others are closed in it.
    """
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
            box.groups.join(f"{profile}-{slot}", (limits.data_mb + GROUP_SLACK_MB) * 2**20, limits.processes)
            _keep_only(send, *files)
            confine(box, profile, limits, slot, readable)
            body()
            os._exit(0)
        except BaseException:
            os.write(2, traceback.format_exc()[-OUTPUT_TAIL:].encode(errors="replace"))
        finally:
            os._exit(HARNESS_FAILED)
    os.close(send)
    leave = partial(box.groups.leave, f"{profile}-{slot}")
    return Process(pid, slot, limits, receive, now, leave, has_children=profile is not Profile.PROGRAM)


def read_program() -> dict[str, Any]:
    """The request, with the text; called in the child."""
    request: dict[str, Any] = json.loads(contents(PROGRAM, MAX_PROGRAM))
    os.close(PROGRAM)
    return request


@contextlib.contextmanager
def written(descriptor: int) -> Iterator[BinaryIO]:
    """A file that a child writes to. It is closed afterwards."""
    with os.fdopen(descriptor, "wb") as file:
        yield file


def _keep_only(output: int, *wanted: int | None) -> None:
    """Set up the descriptors of a confined process and close all others."""
    nothing = os.open(os.devnull, os.O_RDWR)
    all_wanted = [nothing, output, output, *wanted]
    high = [fcntl.fcntl(nothing if fd is None else fd, fcntl.F_DUPFD, 64) for fd in all_wanted]
    for target, source in enumerate(high):
        os.dup2(source, target)
    os.closerange(len(all_wanted), os.sysconf("SC_OPEN_MAX"))
