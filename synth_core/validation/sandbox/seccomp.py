"""seccomp: which system calls a process may make. It holds until the process ends, and is inherited.

A call that no sound program makes ends the process with SIGSYS, and the supervisor reports a violation. A
call that a library may try in good faith fails with an error, or does nothing and reports success. A program
may make only the calls of a list. Any other call fails as on a kernel that lacks it, so libraries use
something else. Provers run trusted code and a compiler, so they may make every call that is not forbidden.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from enum import StrEnum
from typing import Final

from synth_core.validation.sandbox import linux


class Profile(StrEnum):
    """What the confined process is."""

    PROGRAM = "program"  # one program: may start neither process nor thread
    PROVER = "prover"  # proves graphs: starts the C++ compiler
    GPU_PROVER = "gpu-prover"  # the same on a GPU: the driver needs unix sockets


# Name -> number on (x86_64, aarch64), from asm/unistd_64.h and asm-generic/unistd.h; -1: no such call.
_VIOLATIONS: Final = {
    "connect": (42, 203), "bind": (49, 200), "socketpair": (53, 199), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "move_mount": (429, 429), "open_tree": (428, 428),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "process_mrelease": (448, 448),
    "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161),
    "setdomainname": (171, 162), "syslog": (103, 116), "quotactl": (179, 60), "fanotify_init": (300, 262),
    "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "kcmp": (312, 272), "shmget": (29, 194),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "mknod": (133, -1), "mknodat": (259, 33),
}  # fmt: skip
# 40 programs made 23 of these calls (measured). C libraries, Python and torch may make the others elsewhere.
_PROGRAM_CALLS: Final = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "open": (2, -1), "openat": (257, 56), "close": (3, 57), "close_range": (436,
    436), "lseek": (8, 62), "stat": (4, -1), "fstat": (5, 80), "lstat": (6, -1), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, -1), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink":
    (89, -1), "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "statfs": (137, 43), "fstatfs": (138, 44), "dup": (32, 23), "dup2": (33, -1),
    "dup3": (292, 24), "fcntl": (72, 25), "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83),
    "ftruncate": (77, 46), "truncate": (76, 45), "fallocate": (285, 47), "fadvise64": (221, 223),
    "sendfile": (40, 71), "copy_file_range": (326, 285), "mkdir": (83, -1), "mkdirat": (258, 34), "rmdir":
    (84, -1), "unlink": (87, -1), "unlinkat": (263, 35), "rename": (82, -1), "renameat": (264, 38),
    "renameat2": (316, 276), "link": (86, -1), "linkat": (265, 37), "symlink": (88, -1), "symlinkat": (266,
    36), "umask": (95, 166), "pipe": (22, -1), "pipe2": (293, 59), "poll": (7, -1), "ppoll": (271, 73),
    "select": (23, -1), "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22), "epoll_wait": (232, -1), "eventfd2": (290, 19), "mmap": (9, 222), "munmap":
    (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "brk": (12, 214), "madvise": (28, 233),
    "mincore": (27, 232), "msync": (26, 227), "get_mempolicy": (239, 236), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136), "rt_sigtimedwait":
    (128, 137), "sigaltstack": (131, 132), "pause": (34, -1), "alarm": (37, -1), "setitimer": (38, 103),
    "getitimer": (36, 102), "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274,
    100), "set_tid_address": (218, 96), "rseq": (334, 293), "membarrier": (324, 283), "restart_syscall":
    (219, 128), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147,
    126), "getcpu": (309, 168), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178),
    "getpgrp": (111, -1), "getpgid": (121, 155), "getsid": (124, 156), "getuid": (102, 174), "geteuid":
    (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158), "getresuid": (118,
    148), "getresgid": (120, 150), "capget": (125, 90), "getrlimit": (97, 163), "setrlimit": (160, 164),
    "getrusage": (98, 165), "sysinfo": (99, 179), "times": (100, 153), "uname": (63, 160), "getrandom":
    (318, 278), "arch_prctl": (158, -1), "prctl": (157, 167), "gettimeofday": (96, 169), "time": (201, -1),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "nanosleep": (35, 101), "clock_nanosleep":
    (230, 115), "wait4": (61, 260), "waitid": (247, 95), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
_DRIVER_CALLS: Final = ("connect", "bind", "socketpair")
_PROCESS_CALLS: Final = {"execve": (59, 221), "execveat": (322, 281), "fork": (57, -1), "vfork": (58, -1)}
_REFUSED: Final = {
    "personality": (135, 92), "setpriority": (141, 140), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
}  # fmt: skip
# Landlock does not cover metadata. Linkers change modes in good faith, so these calls report success.
_PRETENDED: Final = {
    "setsid": (112, 157), "setpgid": (109, 154), "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54),
    "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
# The first argument is a process: allowed only for the process itself.
_SELF_ONLY: Final = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "prlimit64": (302, 261), "sched_setaffinity": (203, 122),
}  # fmt: skip
_SOCKET: Final = (41, 198)
_CLONE: Final = (56, 220)
_CLONE3: Final = 435
_IOCTL: Final = (16, 29)
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_NUMBER, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24  # offsets into struct seccomp_data
_CLONE_THREAD: Final = 0x0001_0000
_NEW_NAMESPACES: Final = 0x7E02_0080
_X32: Final = 0x4000_0000
_TERMINAL_IOCTLS: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: type into the user's terminal

Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether we have filters for this processor and the kernel accepts them."""
    return linux.LINUX and linux.machine() in _AUDIT_ARCH and os.path.exists("/proc/sys/kernel/seccomp")


def restrict(profile: Profile) -> None:
    """Install the filter for this process and all it may start. Needs no_new_privs; raises OSError."""
    instructions = _filter(profile, linux.machine(), os.getpid())
    code = b"".join(struct.pack("HBBI", *i) for i in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(buffer))
    linux.syscall(_SECCOMP[linux.machine()], 1, 0, program)


def _filter(profile: Profile, machine: str, pid: int) -> list[Instruction]:
    """The filter as classic BPF. It compares the number of the call with each rule in turn."""
    column = 0 if machine == "x86_64" else 1
    program = profile is Profile.PROGRAM
    violations = dict(_VIOLATIONS)
    out: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL),
        *_when(_CLONE3, _FAIL | errno.ENOSYS),  # its flags cannot be read here; libc then uses clone
    ]  # fmt: skip
    if program:
        violations |= _PROCESS_CALLS | {"socket": _SOCKET}
        for numbers in _SELF_ONLY.values():
            out += _unless_first_argument(numbers[column], (0, pid), _KILL)
    elif profile is Profile.GPU_PROVER:
        violations = {name: numbers for name, numbers in violations.items() if name not in _DRIVER_CALLS}
        out += _unless_first_argument(_SOCKET[column], (socket.AF_UNIX,), _FAIL | errno.EACCES)
    else:
        violations["socket"] = _SOCKET
    for calls, action in (
        (violations, _KILL),
        (_REFUSED, _FAIL | errno.EPERM),
        (_PRETENDED, _FAIL | 0),
        (_PROGRAM_CALLS if program else {}, _ALLOW),
    ):
        for numbers in calls.values():
            out += _when(numbers[column], action)
    out += _clone_rule(_CLONE[column], program)
    out += _ioctl_rule(_IOCTL[column])
    return [*out, (_RETURN, 0, 0, _FAIL | errno.ENOSYS if program else _ALLOW)]


def _when(number: int, action: int) -> list[Instruction]:
    return [] if number < 0 else [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, action)]


def _unless_first_argument(number: int, allowed: tuple[int, ...], action: int) -> list[Instruction]:
    """`action` if the first argument of the call (its low 32 bits) is not in `allowed`."""
    tests = [
        (_EQUAL, len(allowed) - i, 0, value) for i, value in enumerate(allowed)
    ]  # fmt: skip
    body: list[Instruction] = [
        (_LOAD, 0, 0, _FIRST), *tests, (_RETURN, 0, 0, action), (_RETURN, 0, 0, _ALLOW),
    ]  # fmt: skip
    return [(_EQUAL, 0, len(body), number), *body]


def _clone_rule(number: int, program: bool) -> list[Instruction]:
    """Nobody gets new namespaces. A program gets no process, and for threads the error of too many."""
    body: list[Instruction] = [
        (_LOAD, 0, 0, _FIRST),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _KILL),
    ]
    if program:
        body += [(_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _KILL)]
    body += [(_RETURN, 0, 0, _FAIL | errno.EAGAIN if program else _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]


def _ioctl_rule(number: int) -> list[Instruction]:
    first, second = _TERMINAL_IOCTLS
    body: list[Instruction] = [
        (_LOAD, 0, 0, _SECOND), (_EQUAL, 1, 0, first), (_EQUAL, 0, 1, second),
        (_RETURN, 0, 0, _FAIL | errno.EPERM), (_RETURN, 0, 0, _ALLOW),
    ]  # fmt: skip
    return [(_EQUAL, 0, len(body), number), *body]
