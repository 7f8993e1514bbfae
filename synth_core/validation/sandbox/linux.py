"""The few Linux system calls that Python has no function for, through ctypes."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Any, Final

LINUX: Final = sys.platform == "linux"

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_CHILD_SUBREAPER: Final = 36

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000

MOUNT_ATTR_RDONLY: Final = 1
AT_RECURSIVE: Final = 0x8000
AT_FDCWD: Final = -100

_MNT_DETACH: Final = 2
_SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}

# Numbers of calls added after Linux 5.0 are the same on every architecture.
SYS_MOUNT_SETATTR: Final = 442
SYS_LANDLOCK_CREATE_RULESET: Final = 444
SYS_LANDLOCK_ADD_RULE: Final = 445
SYS_LANDLOCK_RESTRICT_SELF: Final = 446

_libc = ctypes.CDLL(None, use_errno=True)


def machine() -> str:
    """The kernel's name of this processor: `x86_64`, `aarch64`, …"""
    return platform.machine()


def syscall(number: int, *arguments: Any) -> int:
    """Call the kernel; raise OSError on failure."""
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *plain), f"syscall {number}")


def prctl(option: int, *arguments: int) -> None:
    padded = [*arguments, *[0] * (4 - len(arguments))]
    _checked(_libc.prctl(ctypes.c_int(option), *map(ctypes.c_ulong, padded)), f"prctl {option}")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode() or None
    )
    _checked(result, f"mount {target}")


def pivot_root(folder: str) -> None:
    """Make a mounted folder the root of this namespace, and detach the old root."""
    os.chdir(folder)
    syscall(_SYS_PIVOT_ROOT[machine()], ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    unmount(".")
    os.chdir("/")


def unmount(path: str) -> None:
    """Detach a mount, even if it is in use."""
    _checked(_libc.umount2(os.fsencode(path), ctypes.c_int(_MNT_DETACH)), f"umount {path}")


def set_mount_read_only(path: str, read_only: bool, recursive: bool) -> None:
    """Make a mount (and those below it) read-only, or writable again."""
    bit = MOUNT_ATTR_RDONLY
    attributes = struct.pack("QQQQ", bit if read_only else 0, 0 if read_only else bit, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, ctypes.c_char_p(os.fsencode(path)), flags, attributes, len(attributes)
    )


def drop_capabilities() -> None:
    """Give up every capability for good."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break
    header = struct.pack("II", 0x2008_0522, 0)
    _checked(_libc.capset(header, bytes(24)), "capset")


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent dies; exit if the parent is already dead."""
    import signal

    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
