"""The judge process: forked before any program ran, it sees raw evidence of dead processes only.

Messages are files without a path, passed as descriptors, so neither side ever blocks on a large one: the
zygote sends the request and the evidence, the judge writes its answer into a file it was handed and says so.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from synth_core.records import Category, Stage
from synth_core.validation.evidence import Evidence, Observation
from synth_core.validation.sandbox.confine import Limits, Sandbox, confine
from synth_core.validation.sandbox.process import anonymous_file
from synth_core.validation.sandbox.seccomp import Profile

PATIENCE: Final = 120.0
"""Seconds the judge may take over one program before it is replaced."""
WORKERS_EACH: Final = 4
"""Workers that one judge keeps up with: a case takes it up to 0.1 s, and a GPU 0.3 s (measured)."""
VETTING: Final = "vetting"
"""Stage of a run that only has to reach its end (cuda.py)."""
_TICKET: Final = b"judge it"
_DESCRIPTORS: Final = 8

Judgement = dict[str, Any]
"""Fields of a `Verdict` without stage, tier and torch, and `graph`, a `Graph` as JSON or None."""


@dataclass
class _Case:
    files: list[int]
    answered: Callable[[Judgement], None]
    since: float = 0.0


class Judges:
    """As many judges as the workers keep busy."""

    def __init__(self, box: Sandbox, slot: int, workers: int) -> None:
        """slot: the first of as many as there are workers that nobody else uses."""
        self._judges = [Judge(box, slot + number) for number in range(max(1, workers // WORKERS_EACH))]

    @property
    def idlest(self) -> Judge:
        """The one with the fewest cases before it."""
        return min(self._judges, key=lambda judge: judge.waiting)

    def watched(self) -> dict[int, Callable[[], object]]:
        return {judge.fileno(): judge.receive for judge in self._judges}

    def watch(self, now: float) -> None:
        for judge in self._judges:
            judge.watch(now)


class Judge:
    """One judge as the zygote sees it. Cases are answered in the order they came."""

    def __init__(self, box: Sandbox, slot: int) -> None:
        self._box, self._slot = box, slot
        self._cases: deque[_Case] = deque()
        self._start()

    @property
    def waiting(self) -> int:
        return len(self._cases)

    def fileno(self) -> int:
        return self._socket.fileno()

    def submit(
        self,
        stage: str,
        request: dict[str, Any],
        evidence: Sequence[tuple[int, Observation]],
        answered: Callable[[Judgement], None],
    ) -> None:
        """Ask for a judgement; `answered` is called with it from `receive`. Evidence stays the caller's."""
        brief = {"stage": stage, "request": request, "observed": [asdict(o) for _, o in evidence]}
        case = anonymous_file("case")
        os.write(case, b"")
        with os.fdopen(os.dup(case), "wb") as file:
            file.write(json.dumps(brief).encode())
        files = [anonymous_file("judgement"), case, *[os.dup(fd) for fd, _ in evidence]]
        self._cases.append(_Case(files, answered, time.monotonic()))
        socket.send_fds(self._socket, [_TICKET], files)

    def receive(self) -> None:
        """Take what the judge has said; replace it where it died."""
        try:
            said = self._socket.recv(4096)
        except OSError:
            said = b""
        for _ in range(len(said) // len(_TICKET)):
            self._answer(self._cases.popleft())
        if not said:
            self._replace()

    def watch(self, now: float) -> None:
        if self._cases and now - self._cases[0].since > PATIENCE:
            os.kill(self._pid, signal.SIGKILL)

    def _answer(self, case: _Case) -> None:
        size = os.fstat(case.files[0]).st_size
        judgement = json.loads(os.pread(case.files[0], size, 0))
        for fd in case.files:
            os.close(fd)
        case.answered(judgement)

    def _replace(self) -> None:
        """The case in hand killed the judge: that is its verdict. The others go to the next judge."""
        self._socket.close()
        self._start()
        if self._cases:
            case = self._cases.popleft()
            for fd in case.files:
                os.close(fd)
            case.answered(failure(Category.CRASH, "the judge did not survive its evidence", check="judge"))
        for case in self._cases:
            case.since = time.monotonic()
            socket.send_fds(self._socket, [_TICKET], case.files)

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._socket.close()
                high = theirs.fileno()
                os.closerange(3, high)
                os.closerange(high + 1, os.sysconf("SC_OPEN_MAX"))
                limits = Limits(seconds=10**8, data_mb=16384, born_kb=2**22)
                confine(self._box, Profile.PROGRAM, limits, self._slot)
                _serve(theirs)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        theirs.close()


def failure(category: Category, detail: str, **fields: Any) -> Judgement:
    return {"passed": False, "category": category, "detail": detail, "graph": None, **fields}


def _serve(connection: socket.socket) -> None:
    while True:
        ticket, files, _, _ = socket.recv_fds(connection, len(_TICKET), _DESCRIPTORS)
        if not ticket:
            return
        answer, case, *evidence = files
        brief = json.loads(os.pread(case, os.fstat(case).st_size, 0))
        try:
            judgement = _judge(brief, evidence)
        except Exception:
            traceback.print_exc()
            last = traceback.format_exc().strip().splitlines()[-1]
            judgement = failure(Category.CRASH, f"the judge failed on its evidence: {last}", check="judge")
        with os.fdopen(answer, "wb") as file:
            file.write(json.dumps(judgement).encode())
        for fd in files[1:]:
            os.close(fd)
        connection.sendall(_TICKET)


def _judge(brief: dict[str, Any], files: list[int]) -> Judgement:
    from synth_core.validation.judge import decide

    evidence = []
    for fd, observed in zip(files, brief["observed"], strict=True):
        data = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)) if os.fstat(fd).st_size else bytearray()
        evidence.append(Evidence.read(data, Observation(**observed)))
        if not evidence[-1].complete:
            return failure(Category.CRASH, "the process ended without complete evidence", check="complete")
    if brief["stage"] == VETTING and "error" not in evidence[0].values:
        return {"passed": True, "graph": None, "sizes": evidence[0].values.get("sizes")}
    judge: Callable[..., Judgement] = (
        decide.judge_compiled if brief["stage"] == Stage.VALIDATE_COMPILE else decide.judge_eager
    )
    return judge(brief["request"], *evidence)
