"""Compiling the C++ of waiting processes, several at a time, in confined compilers.

A unit holds several programs whose kernels are all plain (units.py), or one program alone: one whose kernels
are not, one that asked to be alone, or one whose shared unit failed.
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

from synth_core.validation import units
from synth_core.validation.evidence import Observation
from synth_core.validation.sandbox import process
from synth_core.validation.sandbox.confine import Limits, Sandbox
from synth_core.validation.sandbox.process import Process
from synth_core.validation.sandbox.seccomp import Profile

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

    @property
    def shareable(self) -> bool:
        return not self.alone and not any(units.why_not_plain(source) for source in self.sources)


@dataclass(eq=False)
class _Unit:
    """A living compiler. `names[i]` are the functions of `clients[i]`."""

    clients: list[Client]
    names: list[list[str]]
    texts: list[str]
    process: Process


class Builder:
    """The waiting clients and the living compilers."""

    def __init__(self, box: Sandbox, compiler: units.Compiler) -> None:
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
        first = self._waiting.popleft()
        clients = [first]
        if first.shareable:
            mates = [client for client in self._waiting if client.shareable][: UNIT_SIZE - 1]
            for mate in mates:
                self._waiting.remove(mate)
            clients += mates
        self._serial += 1
        names = [[f"u{self._serial}_{i}_{j}" for j in range(len(c.sources))] for i, c in enumerate(clients)]
        if first.shareable:
            texts = [
                units.shared_source(
                    [s for c in clients for s in c.sources], [n for row in names for n in row]
                )
            ]
        else:
            texts = [units.lone_source(s, n) for s, n in zip(first.sources, names[0], strict=True)]
        compiler = process.start(
            self._box, Profile.COMPILER, _LIMITS, self._slots.pop(), lambda: _compile(self._compiler, texts),
            readable=self._compiler.readable,
        )  # fmt: skip
        self._units[compiler.pid] = _Unit(clients, names, texts, compiler)

    def ended(self, pid: int, status: int) -> bool:
        """Deal with a dead compiler; False if that process was none."""
        unit = self._units.pop(pid, None)
        if unit is None:
            return False
        observed = unit.process.reaped(status)
        folder = f"{self._box.scratch}/{Profile.COMPILER}-{unit.process.slot}"
        libraries = self._collect(folder, len(unit.texts)) if observed.finished else []
        shutil.rmtree(folder, ignore_errors=True)
        self._slots.append(unit.process.slot)
        for library in libraries:
            self._users[library] = set(unit.clients)
        for client, names in zip(unit.clients, unit.names, strict=True):
            self._deliver(client, names, libraries, observed, len(unit.clients) > 1)
        return True

    def _deliver(
        self, client: Client, names: list[str], libraries: list[str], observed: Observation, shared: bool
    ) -> None:
        client.libraries += libraries
        if not client.sources:  # it died meanwhile
            self.forget(client)
        elif libraries:
            client.shared |= shared
            places = libraries * len(names) if len(libraries) < len(names) else libraries
            client.answer({"functions": list(zip(places, names, strict=True))})
        elif shared:
            client.alone = True
            self._waiting.appendleft(client)
        else:
            client.answer({"error": _complaint(observed)})

    def _collect(self, folder: str, count: int) -> list[str]:
        """Move finished libraries to where programs can read them; none where one is missing."""
        if not all(_is_plain_file(f"{folder}/{i}.so") for i in range(count)):
            return []
        libraries = [f"{self.folder}/{self._serial}-{time.monotonic_ns()}-{i}.so" for i in range(count)]
        for i, library in enumerate(libraries):
            os.rename(f"{folder}/{i}.so", library)
        return libraries


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
