"""What a process uses, as the kernel reports it."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synth_core.validation.sandbox import linux

_CPU_CLOCK: Final = 2  # CPUCLOCK_SCHED of linux/posix-timers.h; above it stands the complement of the process


def resident_kb(pid: int) -> int:
    """Resident memory that is not backed by files, in KiB; 0 if it cannot be known."""
    return seen(pid).resident_kb


def data_kb(pid: int) -> int:
    """What the kernel counts against the limit on private memory, in KiB."""
    return seen(pid).data_kb


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, with all its threads; 0 if they cannot be known."""
    if not linux.LINUX:
        return 0.0
    try:
        return time.clock_gettime((~pid << 3) | _CPU_CLOCK)
    except OSError:
        return 0.0


def seconds_of_children(pid: int) -> float:
    """CPU seconds of all descendants of a process, dead ones included."""
    total = 0.0
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += cpu_seconds(int(child)) + seconds_of_children(int(child))
    return total


@dataclass
class Seen:
    """What the kernel reports of a process now."""

    sleeps: bool = False
    threads: int = 0
    resident_kb: int = 0
    data_kb: int = 0


def seen(pid: int) -> Seen:
    seen = Seen()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == "State":
                seen.sleeps = value.split()[0] == "S"
            elif key in ("RssAnon", "RssShmem"):
                seen.resident_kb += int(value.split()[0])
            elif key == "VmData":
                seen.data_kb = int(value.split()[0])
            elif key == "Threads":
                seen.threads = int(value)
                break
    return seen


def folder_bytes(folder: str) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total
