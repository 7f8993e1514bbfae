"""Namespaces: what a process and its children can see at all.

The supervisor enters them once, before it imports anything large. Inside there is no network, no process from
outside and no IPC. Instead of the disk there is a small read-only tree, and the scratch folder is in memory.
The death of the supervisor ends everything inside, and nothing that was written is left. Each program gets a
mount namespace of its own, with a private scratch folder of limited size.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from synth_core.validation.sandbox import linux

_WORLD = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS


def enter(scratch: str, writable: Sequence[str], visible: Iterable[str]) -> None:
    """Enter new namespaces. Returns in a new process, which is pid 1 there. Raises OSError if refused.

    The calling process stays outside and ends when the new one ends. Of the disk only the `visible` paths are
    left, read-only, and the `writable` folders. `scratch`, an existing folder, becomes a folder in memory.
    """
    user, group = os.getuid(), os.getgid()
    linux.unshare(_WORLD | (linux.CLONE_NEWUSER if user else 0))
    if user:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    _stay_behind()
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    _small_tree(scratch, writable, visible)
    linux.pivot_root(scratch)


def _small_tree(root: str, writable: Sequence[str], visible: Iterable[str]) -> None:
    """Make `root` a tree of bind mounts, in which the path of `root` itself is an empty folder in memory."""
    before = os.umask(0o022)  # programs run as other users
    plain = linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("tmpfs", root, "tmpfs", plain, "mode=0755,size=64m")
    try:
        for path in sorted({*visible, *writable}):
            _show(root, path)
        os.makedirs(root + root)
        os.makedirs(f"{root}/proc", exist_ok=True)
        linux.set_mount_read_only(root, read_only=True, recursive=True)
        for folder in writable:
            linux.set_mount_read_only(root + os.path.realpath(folder), read_only=False, recursive=False)
        linux.mount("tmpfs", root + root, "tmpfs", plain, "mode=0755")
        linux.mount("proc", f"{root}/proc", "proc", plain | linux.MS_NOEXEC)
    finally:
        os.umask(before)


def _show(root: str, path: str) -> None:
    """Bind one path into the tree, and make the symbolic links that lead to it again."""
    place = Path("/")
    for part in Path(path).parts[1:]:
        place /= part
        if os.path.lexists(f"{root}{place}"):
            continue
        if place.is_symlink():
            os.symlink(os.readlink(place), f"{root}{place}")
        elif str(place) == path:
            _bind(f"{root}{place}", path)
        elif place.is_dir():
            os.mkdir(f"{root}{place}")
        else:
            return
    real = os.path.realpath(path)
    if real != path and not os.path.exists(root + real):
        _show(root, real)


def _bind(target: str, path: str) -> None:
    if not os.path.exists(path):
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        Path(target).touch()
    linux.mount(path, target, "", linux.MS_BIND | linux.MS_REC)


def private_scratch(folder: str, size_mb: int, owner: int, hidden: Sequence[str] = ()) -> None:
    """Give this process a scratch of its own at `folder`: at most `size_mb` MiB, and 64 files per MiB.

    hidden: mounts that it must not see.
    """
    linux.unshare(linux.CLONE_NEWNS)
    for mount in hidden:
        linux.unmount(mount)
    inodes = size_mb * 64
    options = f"mode=0700,size={size_mb}m,nr_inodes={inodes},uid={owner},gid={owner}"
    linux.mount("tmpfs", folder, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)


def _stay_behind() -> None:
    """Fork. The parent waits and ends as the child ends. If one dies, so does the other."""
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
