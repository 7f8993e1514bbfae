"""Namespaces: what a process and its children can see at all.

The zygote enters once, before it imports anything large: no network, no other processes, no IPC, a read-only
view of the disk, and memory in place of a scratch folder. Its death ends everything inside, and nothing it
wrote is left. Each program then gets a mount namespace of its own, with a private scratch of capped size.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from synth_core.validation.sandbox import linux

_WORLD = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS


def enter(scratch: str, writable: Sequence[str]) -> None:
    """Move into fresh namespaces and return in a new process, pid 1 of them; raise OSError if refused.

    The calling process stays behind as a thin parent that ends as its child ends. `scratch` (an existing
    folder) becomes memory; `writable` folders stay as they are; the rest of the disk turns read-only.
    """
    user, group = os.getuid(), os.getgid()
    linux.unshare(_WORLD | (linux.CLONE_NEWUSER if user else 0))
    if user:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    _stay_behind()
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    for folder in writable:
        linux.mount(folder, folder, "", linux.MS_BIND)
    linux.set_mount_read_only("/", read_only=True, recursive=True)
    for folder in writable:
        linux.set_mount_read_only(folder, read_only=False, recursive=False)
    linux.mount("tmpfs", scratch, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755")
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)


def private_scratch(folder: str, size_mb: int, owner: int) -> None:
    """Give this process alone a scratch of at most `size_mb` MiB, and 64 files for each, at `folder`."""
    linux.unshare(linux.CLONE_NEWNS)
    inodes = size_mb * 64
    options = f"mode=0700,size={size_mb}m,nr_inodes={inodes},uid={owner},gid={owner}"
    linux.mount("tmpfs", folder, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)


def _stay_behind() -> None:
    """Fork; the parent waits and ends as the child does. Either one's death ends the other."""
    child = os.fork()
    if child == 0:
        # The parent is outside the new pid namespace, so getppid() is 0 here and cannot show its death.
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
