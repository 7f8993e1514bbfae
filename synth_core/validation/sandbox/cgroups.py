"""Control groups: a cap on all memory and all tasks of one process, if this machine allows it.

They also count memory that the limits of a process do not count: files in memory, page tables, the kernel's
own. Both versions of the kernel's interface are tried. The folders are reached through descriptors, which are
opened before the namespaces hide the rest of the disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_PREFIX: Final = "synth-"
_LIMITS: Final = (  # controller, file, of version 2 and of version 1
    ("memory", "memory.max", "memory.limit_in_bytes"),
    ("pids", "pids.max", "pids.max"),
)


@dataclass
class Groups:
    """folders: for each hierarchy, a descriptor of our own folder and the names of its limits."""

    folders: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    name: str = ""
    _parents: list[int] = field(default_factory=list)

    def join(self, slot: str, memory_bytes: int, tasks: int) -> None:
        """Put this process into a group of its own with these caps, as far as the kernel accepts them."""
        values = {"memory": memory_bytes, "pids": tasks}
        for folder, limits in self.folders:
            with contextlib.suppress(OSError):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(slot, 0o755, dir_fd=folder)
                for controller, name in limits.items():
                    _write(folder, f"{slot}/{name}", str(values[controller]))
                _write(folder, f"{slot}/cgroup.procs", "0")

    def leave(self, slot: str) -> bool:
        """Remove the group of a dead process; True if the kernel killed it because its memory ran out."""
        killed = False
        for folder, _ in self.folders:
            for file in ("memory.events", "memory.oom_control"):
                counts = dict(line.split() for line in _read(folder, f"{slot}/{file}").splitlines())
                killed |= counts.get("oom_kill", "0") != "0"
            with contextlib.suppress(OSError):
                os.rmdir(slot, dir_fd=folder)
        return killed

    def close(self) -> None:
        for (folder, _), parent in zip(self.folders, self._parents, strict=True):
            for slot in os.listdir(folder):
                with contextlib.suppress(OSError):
                    os.rmdir(slot, dir_fd=folder)
            with contextlib.suppress(OSError):
                os.rmdir(self.name, dir_fd=parent)


def find() -> Groups:
    """Groups of our own, under the group of this process or of the machine; without folders if none work."""
    groups = Groups(name=f"{_PREFIX}{os.getpid()}-{secrets.token_hex(3)}")
    wanted = {controller for controller, _, _ in _LIMITS}
    for place in _places():
        if not wanted:
            break
        found = _made(place, groups.name, wanted)
        if found:
            groups.folders.append((os.open(place / groups.name, os.O_RDONLY | os.O_DIRECTORY), found))
            groups._parents.append(os.open(place, os.O_RDONLY | os.O_DIRECTORY))
            wanted -= found.keys()
    return groups


def _places() -> list[Path]:
    """Folders in which we may make a group: that of this process in each hierarchy, then the roots."""
    own: list[Path] = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            names = controllers.split(",") if controllers else ("", "unified")
            own += [_ROOT / name.removeprefix("name=") / path.lstrip("/") for name in names]
    roots = [_ROOT, *(_ROOT / controller for controller, _, _ in _LIMITS)]
    return [place for place in dict.fromkeys([*own, *roots]) if place.is_dir()]


def _made(place: Path, name: str, wanted: set[str]) -> dict[str, str]:
    """Make a folder in `place`; return its limits by controller. {}: it has none and is gone again."""
    _sweep(place)
    try:
        (place / name).mkdir()
    except OSError:
        return {}
    with contextlib.suppress(OSError):  # version 2 hands a controller down only on request
        (place / name / "cgroup.subtree_control").write_text("+memory +pids")
    (place / name / "trial").mkdir()
    held = {
        controller: file
        for controller, *files in _LIMITS
        for file in files
        if controller in wanted and (place / name / "trial" / file).exists()
    }
    (place / name / "trial").rmdir()
    if not held:
        (place / name).rmdir()
    return held


def _sweep(place: Path) -> None:
    """Remove the folders of killed supervisors. A folder in use cannot be removed."""
    with contextlib.suppress(OSError):
        for old in place.glob(f"{_PREFIX}*"):
            if os.path.exists(f"/proc/{old.name.split('-')[1]}"):
                continue
            with contextlib.suppress(OSError):
                for slot in old.iterdir():
                    if slot.is_dir():
                        slot.rmdir()
                old.rmdir()


def _write(folder: int, path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(folder: int, path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY, dir_fd=folder)
    except OSError:
        return ""
    with os.fdopen(descriptor) as file:
        return file.read()
