"""Landlock: which part of the file system a process may use. It holds until the process ends.

It covers what the ABI of the running kernel covers. From version 4 on that includes TCP, from version 6 on
signals and abstract unix sockets.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from typing import Final

from synth_core.validation.sandbox import linux

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
MAKE_CHAR: Final = 1 << 6
MAKE_SOCK: Final = 1 << 9
MAKE_FIFO: Final = 1 << 10
MAKE_BLOCK: Final = 1 << 11
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15

_FILE_RIGHTS: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_RIGHTS_OF_ABI: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_ALL_TCP: Final = 0b11
_ALL_SCOPES: Final = 0b11

READ: Final = READ_FILE | READ_DIR
READ_EXECUTE: Final = READ | EXECUTE
WRITE: Final = ((1 << 15) - 1) & ~(MAKE_CHAR | MAKE_BLOCK | MAKE_SOCK | MAKE_FIFO | EXECUTE)
DEVICE: Final = READ_FILE | WRITE_FILE | IOCTL_DEV


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("fd", ctypes.c_int32))


def abi() -> int:
    """Version of Landlock that the kernel offers; 0 if it offers none."""
    try:
        return linux.syscall(linux.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1) if linux.LINUX else 0
    except OSError:
        return 0


def restrict(rules: Iterable[tuple[str, int]]) -> None:
    """Forbid this process every file access that no rule (path, rights) allows.

    Ignores a path that does not exist. Needs no_new_privs. Raises OSError if Landlock is missing.
    """
    version = abi()
    handled = _RIGHTS_OF_ABI[max((v for v in _RIGHTS_OF_ABI if v <= version), default=1)]
    ruleset = _Ruleset(handled, _ALL_TCP if version >= 4 else 0, _ALL_SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    handle = linux.syscall(linux.SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    try:
        for path, rights in rules:
            _allow(handle, path, rights & handled)
        linux.syscall(linux.SYS_LANDLOCK_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= _FILE_RIGHTS
        rule = _PathBeneath(rights, handle)
        linux.syscall(linux.SYS_LANDLOCK_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(handle)
