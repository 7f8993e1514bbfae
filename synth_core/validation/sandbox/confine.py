"""The confinement of one process, and the tiers that a machine allows."""

from __future__ import annotations

import contextlib
import glob
import os
import resource
import signal
import site
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from synth_core.records import Tier
from synth_core.validation.sandbox import landlock, linux, namespaces, seccomp
from synth_core.validation.sandbox.cgroups import Groups
from synth_core.validation.sandbox.seccomp import Profile

FIRST_UID: Final = 70_000
"""If the engine is root, slot n runs as this user id plus n, which owns nothing else."""
SCRATCH_MB: Final = 256
PROVER_MB: Final = 8192
"""Scratch of a prover, for the files that Inductor and Triton write."""
GROUP_SLACK_MB: Final = 128
"""What the kernel counts besides the memory of a process: page tables, and pages that it copied."""

_SYSTEM: Final = (
    "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/bin", "/usr/include", "/usr/local/lib", "/usr/local/bin",
    "/usr/local/include", "/usr/local/cuda", "/lib", "/lib64", "/bin", "/etc/ld.so.cache",
    "/etc/alternatives", "/etc/localtime", "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
_PROC: Final = (
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory",
)  # fmt: skip
_GPU: Final = ("/sys", "/dev/nvidia-caps", "/sbin", "/usr/sbin")
"""Triton asks ldconfig where the driver is."""
_DRIVER_VARIABLES: Final = ("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH", "CC", "CXX")
"""What a GPU prover keeps of the environment: which GPU, and where driver and compilers are."""
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


@dataclass(frozen=True)
class Sandbox:
    """What this machine can confine processes with. scratch: the folder in which they work."""

    scratch: str
    namespaces: bool
    landlock: bool
    seccomp: bool
    own_uids: bool
    refusals: tuple[str, ...] = ()
    """Why the stronger tiers do not work here, one line each."""
    writable: tuple[str, ...] = ()
    """Folders of our own that provers see and programs do not."""
    groups: Groups = field(default_factory=Groups)
    """Caps on memory and tasks, if this machine allows them."""

    @property
    def tier(self) -> Tier:
        if not (self.landlock and self.seccomp):
            return Tier.C
        return Tier.A if self.namespaces else Tier.B

    def uid(self, slot: int) -> int:
        return FIRST_UID + slot if self.own_uids else os.getuid()


@dataclass(frozen=True)
class Limits:
    """Caps on one process. What memory it has at its start does not count.

    seconds: CPU time; wall time may be ten times as long (process.py).
    """

    seconds: float
    data_mb: int
    born_kb: int = 0
    """Private memory at its start, as the kernel counts it for the limit."""
    born_resident_kb: int = 0
    """Resident memory at its start."""
    files: int = 256
    processes: int = 64


def probe(scratch: str, writable: tuple[str, ...], allowed: Tier = Tier.A) -> Sandbox:
    """Find the strongest sandbox up to `allowed` that works here. Tries each one in a forked process.

    User ids of its own are given up first: another user cannot read a Python in a closed home folder.
    """
    python_paths()
    root = hasattr(os, "getuid") and os.getuid() == 0
    kernel = landlock.abi() > 0 and seccomp.supported()
    refusals: list[str] = []
    for tier, own_uids in ((Tier.A, True), (Tier.A, False), (Tier.B, True), (Tier.B, False)):
        if tier < allowed or not kernel or (own_uids and not root):
            continue
        box = Sandbox(scratch, tier is Tier.A, True, True, own_uids, tuple(refusals))
        if not (refusal := _trial(box, writable)):
            return box
        refusals.append(f"tier {tier}{' with its own user ids' if own_uids else ''}: {refusal}")
    if not kernel:
        refusals.append("this kernel offers no Landlock or no seccomp")
    return Sandbox(scratch, False, False, False, False, tuple(refusals))


def confine(box: Sandbox, profile: Profile, limits: Limits, slot: int, readable: tuple[str, ...] = ()) -> str:
    """Confine this process for good, and return the folder that it may write to. Raises OSError.

    slot: a small number that no other living process of this sandbox has.
    readable: further paths that it may read.
    """
    folder, uid = f"{box.scratch}/{profile}-{slot}", box.uid(slot)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if box.namespaces:
        if profile is Profile.PROGRAM:
            namespaces.private_scratch(folder, SCRATCH_MB, uid, box.writable)
        else:
            namespaces.private_scratch(folder, PROVER_MB, uid)
    if box.own_uids:
        os.chown(folder, uid, uid)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.umask(0o077)
    os.chdir(folder)
    _set_environment(folder, _DRIVER_VARIABLES if profile is Profile.GPU_PROVER else ())
    _set_limits(limits, profile, own_uid=box.own_uids)
    if linux.LINUX:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user id cleared it
        linux.drop_capabilities()
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if box.landlock:
        landlock.restrict(_rules(folder, profile, readable))
    if box.seccomp:
        seccomp.restrict(profile)
    return folder


@cache
def python_paths() -> tuple[str, ...]:
    """Folders that hold the interpreter, its packages and this package.

    `probe` calls this first, so that forks know the folders: under another user id they may not see them.
    """
    packages = {sysconfig.get_paths()[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")}
    here = str(Path(__file__).resolve().parents[2])
    named = {here, *packages, *site.getsitepackages()}
    if site.ENABLE_USER_SITE:
        named.add(site.getusersitepackages())
    named |= {prefix for prefix in (sys.prefix, sys.base_prefix) if prefix != "/usr"}
    return tuple(sorted(path for path in named if os.path.exists(path)))  # Debian names some that are not


def _rules(folder: str, profile: Profile, readable: tuple[str, ...]) -> list[tuple[str, int]]:
    see = landlock.READ if profile is Profile.PROGRAM else landlock.READ_EXECUTE
    rules = [(path, see) for path in (*_SYSTEM, *_PROC, *python_paths(), "/proc/self", *readable)]
    rules += [(path, landlock.DEVICE) for path in _DEVICES]
    if profile is Profile.GPU_PROVER:
        rules += [(path, landlock.READ) for path in ("/sys", "/proc/driver", "/proc/devices")]
        rules += [(path, landlock.READ_EXECUTE) for path in ("/sbin", "/usr/sbin", *driver_paths())]
        rules.append((str(Path(__file__).resolve().parents[3]), landlock.READ))  # Python lists it to import
        rules += [(path, landlock.DEVICE) for path in glob.glob("/dev/nvidia*")]
        rules += [("/dev/nvidia-caps", landlock.DEVICE)]
        # The driver reads the first to be able to map memory at all, and names its threads in the second.
        rules += [("/proc/sys/vm/mmap_min_addr", landlock.READ)]
        rules += [("/proc/self", landlock.READ | landlock.WRITE_FILE | landlock.TRUNCATE)]
    return [*rules, (folder, landlock.WRITE | landlock.READ)]


def _set_environment(folder: str, kept: tuple[str, ...]) -> None:
    before = {name: os.environ[name] for name in kept if name in os.environ}
    os.environ.clear()
    os.environ.update(before)
    os.environ.update(
        PATH="/usr/local/bin:/usr/bin:/bin",
        HOME=folder,
        TMPDIR=folder,
        LANG="C.UTF-8",
        USER="nobody",
        TORCHINDUCTOR_CACHE_DIR=f"{folder}/inductor",
        TRITON_CACHE_DIR=f"{folder}/triton",
        TORCHINDUCTOR_COMPILE_THREADS="1",
        OMP_NUM_THREADS="1",
    )
    if not kept:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # torch would look for a GPU
    tempfile.tempdir = folder


def _set_limits(limits: Limits, profile: Profile, own_uid: bool) -> None:
    """With a shared user id the kernel counts all processes of the user, so they are added to the limit.

    Only the supervisor counts the time of a prover, case by case.
    """
    caps = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits.data_mb * 2**20,
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_DATA: limits.born_kb * 1024 + limits.data_mb * 2**20,
        resource.RLIMIT_NPROC: limits.processes + (0 if own_uid else _threads_of(os.getuid())),
    }
    if profile is Profile.PROGRAM:
        caps[resource.RLIMIT_CPU] = int(limits.seconds * 2) + 10  # behind the supervisor's own clock
    for limit, value in caps.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _threads_of(uid: int) -> int:
    """Number of threads that a user has now, as far as they can be seen from here."""
    total = 0
    for status in glob.glob("/proc/[0-9]*/status"):
        with contextlib.suppress(OSError, ValueError), open(status) as file:
            fields = dict(line.split(":", 1) for line in file if line.startswith(("Uid", "Threads")))
            if fields["Uid"].split()[0] == str(uid):
                total += int(fields["Threads"])
    return total


def visible(extra: Iterable[str] = (), gpu: bool = False) -> list[str]:
    """What is visible of the disk in tier A: what Python, torch and a compiler need, and `extra`."""
    devices = [*_DEVICES, *(glob.glob("/dev/nvidia*") if gpu else ())]
    drivers = (*_GPU, *driver_paths()) if gpu else ()
    return [*_SYSTEM, *python_paths(), *devices, *drivers, *extra]


def driver_paths() -> tuple[str, ...]:
    """Where the libraries of a GPU's driver may lie, besides the system's own folders."""
    named = ("/usr/local/nvidia", *os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    return tuple(path for path in named if path.startswith("/") and os.path.isdir(path))


def _trial(box: Sandbox, writable: tuple[str, ...]) -> str:
    """Try a whole confinement in a forked process; return why it failed, or an empty text."""

    def attempt() -> None:
        if box.namespaces:
            namespaces.enter(box.scratch, writable, visible())
        confine(box, Profile.PROGRAM, Limits(seconds=60, data_mb=4096, born_kb=2**20), slot=999)
        for path in python_paths():
            os.listdir(path)  # a home folder of mode 0700 would hide a Python that lies under it

    return in_child(attempt)


def in_child(body: Callable[[], None]) -> str:
    """Run `body` in a forked process; return the last line of its failure, or an empty text."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        try:
            body()
        except BaseException:
            os.write(send, traceback.format_exc().strip().splitlines()[-1].encode()[:2048])
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return said or ("" if status == 0 else f"ended with status {status}")
