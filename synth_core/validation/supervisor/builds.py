"""Compiling the C++ of waiting processes, several at a time, in confined compilers.

A unit holds the kernels of several programs, or of one alone: one that asked for it, or whose shared unit
failed. Plain kernels (units.py) become one library; each other kernel one that only its own program loads.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from synth_core.validation.evidence import Observation
from synth_core.validation.sandbox import process
from synth_core.validation.sandbox.confine import Limits, Sandbox
from synth_core.validation.sandbox.process import Process
from synth_core.validation.sandbox.seccomp import Profile
from synth_core.validation.supervisor import units

UNIT_SIZE: Final = 8
"""Programs in a unit. Loading the header costs 0.35 CPU seconds a unit, whatever it holds (measured)."""
MAX_MESSAGE: Final = 16 * 2**20
MAX_REQUESTS: Final = 16
"""Times one process may ask for C++; a sound program asks once."""
_LIMITS: Final = Limits(seconds=120.0, data_mb=4096)
_FIRST_SLOT: Final = 512


@dataclass(eq=False)
class Client:
    """A living process that may ask for C++ through `channel`. `sources` is what it waits for."""

    process: Process
    channel: socket.socket
    alone: bool = False
    """Share no unit with other programs."""
    shared: bool = False
    """Something of it was built in a unit with others'."""
    sources: list[str] = field(default_factory=list)
    requests: int = 0
    inbox: bytearray = field(default_factory=bytearray)
    libraries: list[str] = field(default_factory=list)

    def listen(self) -> bool:
        """Take what the process says; True once that is a whole request, which stops its clock."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.inbox += self.channel.recv(2**20)
        if len(self.inbox) > MAX_MESSAGE:
            self.process.violate("it asked for more than 16 MiB of C++")
        if not self.inbox.endswith(b"\n"):
            return False
        self.sources = _sources(self.inbox)
        self.inbox = bytearray()
        self.requests += 1
        if not self.sources or self.requests > MAX_REQUESTS:
            self.sources = []
            self.process.violate("it talked to its supervisor out of turn")
            return False
        self.process.pause()
        return True

    def answer(self, answer: dict[str, Any]) -> None:
        """Let the process go on, its clock where it stopped."""
        self.sources = []
        self.process.resume()
        self.channel.setblocking(True)
        with contextlib.suppress(OSError):
            self.channel.sendall(json.dumps(answer).encode() + b"\n")
        self.channel.setblocking(False)


@dataclass(eq=False)
class _Unit:
    """A living compiler. `functions[i]` are those of `clients[i]`: (number of the library, name)."""

    clients: list[Client]
    functions: list[list[tuple[int, str]]]
    libraries: int
    process: Process


class Builder:
    """The waiting clients and the living compilers."""

    def __init__(self, box: Sandbox, compiler: units.Compiler | None) -> None:
        """compiler: none where nothing will ask for C++, on a GPU."""
        self._box, self._compiler = box, compiler
        self._waiting: deque[Client] = deque()
        self._units: dict[int, _Unit] = {}
        self._users: dict[str, set[Client]] = {}
        self._slots = list(range(_FIRST_SLOT, _FIRST_SLOT + 64))
        self._serial = 0
        os.makedirs(self.folder, exist_ok=True)

    @property
    def folder(self) -> str:
        """Where finished libraries lie until their last user is dead."""
        return f"{self._box.scratch}/units"

    @property
    def compiling(self) -> int:
        return len(self._units)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def processes(self) -> list[Process]:
        return [unit.process for unit in self._units.values()]

    def add(self, client: Client) -> None:
        self._waiting.append(client)

    def forget(self, client: Client) -> None:
        """The client is dead: nothing needs building for it, nor keeping."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(client)
        for library in client.libraries:
            self._users[library].discard(client)
            if not self._users[library]:
                del self._users[library]
                os.unlink(library)

    def start(self) -> None:
        """Start a compiler for those who wait longest."""
        clients = [self._waiting.popleft()]
        if not clients[0].alone:
            clients += [client for client in self._waiting if not client.alone][: UNIT_SIZE - 1]
        for mate in clients[1:]:
            self._waiting.remove(mate)
        self._serial += 1
        texts, functions = _translation_units([client.sources for client in clients], f"u{self._serial}")
        assert self._compiler
        command = self._compiler
        compiler = process.start(
            self._box, Profile.COMPILER, _LIMITS, self._slots.pop(), lambda: _compile(command, texts),
            readable=command.readable,
        )  # fmt: skip
        self._units[compiler.pid] = _Unit(clients, functions, len(texts), compiler)

    def ended(self, pid: int, status: int) -> bool:
        """Deal with a dead compiler; False if that process was none."""
        unit = self._units.pop(pid, None)
        if unit is None:
            return False
        observed = unit.process.reaped(status)
        folder = f"{self._box.scratch}/{Profile.COMPILER}-{unit.process.slot}"
        libraries = self._collect(folder, unit.libraries) if observed.finished else []
        shutil.rmtree(folder, ignore_errors=True)
        self._slots.append(unit.process.slot)
        for client, functions in zip(unit.clients, unit.functions, strict=True):
            used = {libraries[number] for number, _ in functions} if libraries else set()
            for library in used:
                self._users.setdefault(library, set()).add(client)
            client.libraries += used
        for library in set(libraries) - self._users.keys():
            os.unlink(library)  # no kernel of the unit was plain
        for client, functions in zip(unit.clients, unit.functions, strict=True):
            if not client.sources:  # it died meanwhile
                self.forget(client)
            elif libraries:
                client.shared |= len(unit.clients) > 1
                client.answer({"functions": [(libraries[number], name) for number, name in functions]})
            elif len(unit.clients) > 1:
                client.alone = True
                self._waiting.appendleft(client)
            else:
                client.answer({"error": _complaint(observed)})
        return True

    def _collect(self, folder: str, count: int) -> list[str]:
        """Move finished libraries to where programs can read them; none where one is missing."""
        if not all(_is_plain_file(f"{folder}/{i}.so") for i in range(count)):
            return []
        libraries = [f"{self.folder}/{self._serial}-{time.monotonic_ns()}-{i}.so" for i in range(count)]
        for i, library in enumerate(libraries):
            os.rename(f"{folder}/{i}.so", library)
        return libraries


def _translation_units(
    programs: list[list[str]], prefix: str
) -> tuple[list[str], list[list[tuple[int, str]]]]:
    """All plain kernels as text 0, each other kernel as a text of its own, and where each function is.

    A kernel that is not plain goes into a library that none but its own program loads.
    """
    plain: list[tuple[str, str]] = []
    texts = [""]
    functions: list[list[tuple[int, str]]] = []
    for i, sources in enumerate(programs):
        functions.append([])
        for j, source in enumerate(sources):
            name, own = f"{prefix}_{i}_{j}", bool(units.why_not_plain(source))
            functions[i].append((len(texts) if own else 0, name))
            if own:
                texts.append(units.lone_source(source, name))
            else:
                plain.append((source, name))
    texts[0] = units.shared_source([source for source, _ in plain], [name for _, name in plain])
    return texts, functions


def _compile(compiler: units.Compiler, texts: list[str]) -> None:
    """Inside a confined compiler process: `i.cpp` to `i.so` in the folder it stands in."""
    os.umask(0o022)  # programs run as other users
    for i, text in enumerate(texts):
        with open(f"{i}.cpp", "w") as file:
            file.write(text)
        done = subprocess.run(compiler.arguments(f"{i}.cpp", f"{i}.so"), stderr=subprocess.PIPE, text=True)
        if done.returncode:
            first = [line for line in done.stderr.splitlines() if "error" in line][:4]
            sys.stderr.write("\n".join(first) or done.stderr[-1000:])
            sys.stderr.flush()
            os._exit(1)


def _complaint(observed: Observation) -> str:
    if observed.timed_out:
        return f"the C++ compiler was still running after {_LIMITS.seconds:.0f} s"
    return observed.output.strip() or "the C++ compiler failed without a word"


def _is_plain_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _sources(message: bytes | bytearray) -> list[str]:
    """The sources of a request; none where it is not one."""
    try:
        sources = json.loads(message)["kernels"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return sources if isinstance(sources, list) and all(isinstance(s, str) for s in sources) else []
