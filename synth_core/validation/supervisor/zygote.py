"""The supervisor: a warm process from which children are forked. It never runs a program.

The engine starts it with `python -m` and no key in its environment. Stdin is a socket to the engine. The
first line is the configuration. Each further line is a job, with the text in a file that is handed on unread.
Each line back is an answer. The process imports torch and warms up once, and every fork inherits that. It has
one thread. When the socket closes, it ends with all its children.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from synth_core.errors import SynthError, UsageError
from synth_core.records import Tier
from synth_core.validation.sandbox import cgroups, confine, linux, namespaces, toolchain
from synth_core.validation.sandbox.confine import Limits, Sandbox

if TYPE_CHECKING:  # it imports torch, which must wait until the namespaces are entered
    from synth_core.validation.supervisor.job import Job

TICK: Final = 0.05
"""Seconds between two checks of the limits while something runs."""


class Configuration(BaseModel):
    """Line one of stdin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scratch: str
    parent: int
    role: Literal["capture", "repeat"] = "capture"
    """repeat: run each program once, and answer with digests of its outputs."""
    cache: str
    workers: int
    timeout: float
    memory_mb: int
    device: str = "cpu"
    strongest: Tier = Tier.A
    allow_unsandboxed: bool = False


def main() -> None:
    """Serve until the engine closes the socket. A failed start is one line `{"failed": …}`."""
    owner = Owner(socket.socket(fileno=os.dup(0)))
    configuration = Configuration.model_validate_json(owner.first())
    if linux.LINUX:
        linux.die_with_parent(configuration.parent)
    try:
        box = _enter(configuration)
        zygote = _Zygote(configuration, box, owner)
    except (SynthError, OSError) as error:
        owner.say({"failed": str(error), "usage": isinstance(error, UsageError)})
        owner.flush()
        raise SystemExit(1) from None
    zygote.serve()


class Owner:
    """The engine at the other end of the socket. Only `first` and `flush` wait for it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.ended = False
        self._pending = b""
        self._files: deque[int] = deque()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def first(self) -> bytes:
        while not (jobs := self.take()):
            if self.ended:
                raise SystemExit(0)
        return jobs[0][0]

    def take(self) -> list[tuple[bytes, list[int]]]:
        """Read what has come; return the complete lines, each with its files."""
        part, files, _, _ = socket.recv_fds(self._channel, 2**20, 64)
        self.ended = not part
        self._files.extend(files)
        *lines, self._pending = (self._pending + part).split(b"\n")
        return [(line, self._files_of(line)) for line in lines]

    def _files_of(self, line: bytes) -> list[int]:
        return [self._files.popleft() for _ in range(json.loads(line).get("files", 0))]

    def say(self, message: dict[str, Any], *files: int) -> None:
        """Queue a message. When it is sent, its files are closed."""
        self._unsent.append((json.dumps(message | {"files": len(files)}).encode() + b"\n", list(files)))
        self.send()

    def send(self) -> None:
        """Send as much as the socket takes now."""
        self._channel.setblocking(False)
        try:
            while self._unsent:
                data, files = self._unsent[0]
                sent = socket.send_fds(self._channel, [data], files) if files else self._channel.send(data)
                for file in files:
                    os.close(file)
                if sent < len(data):
                    self._unsent[0] = (data[sent:], [])
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        finally:
            self._channel.setblocking(True)

    def flush(self) -> None:
        while self._unsent and not self.ended:
            select.select([], [self._channel], [])
            self.send()


def _enter(configuration: Configuration) -> Sandbox:
    """Find out what this machine allows, and enter the namespaces before anything large is imported."""
    writable = tuple(f"{configuration.cache}/{name}" for name in ("headers", "inductor"))
    for folder in (configuration.scratch, *writable):
        os.makedirs(folder, exist_ok=True)
    os.chmod(configuration.scratch, 0o755)
    box = confine.probe(configuration.scratch, writable, configuration.strongest)
    if box.tier is Tier.C and not configuration.allow_unsandboxed:
        raise UsageError(
            "no sandbox works here, and programs are untrusted; --allow-unsandboxed runs them with resource"
            f" limits alone ({'; '.join(box.refusals)})"
        )
    if box.tier is not Tier.C:
        box = replace(box, groups=cgroups.find())
    if box.namespaces:
        gpu = configuration.device == "cuda"
        namespaces.enter(box.scratch, writable, confine.visible(toolchain.roots(), gpu))
        box = replace(box, writable=writable)
    return box


class _Zygote:
    def __init__(self, configuration: Configuration, box: Sandbox, owner: Owner) -> None:
        self._configuration, self._box, self._owner = configuration, box, owner
        os.environ |= {
            "TMPDIR": box.scratch,
            "TORCHINDUCTOR_CACHE_DIR": f"{configuration.cache}/inductor",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Dynamo would open a CUDA context, which forbids forks
        from synth_core.validation.inside import run, warm
        from synth_core.validation.supervisor.scheduler import Scheduler

        limits = Limits(configuration.timeout, configuration.memory_mb)
        body, provers = run.repeat_program, None
        facts = warm.up(captures=configuration.role == "capture")
        if configuration.role == "capture":
            from synth_core.validation.prover import serving
            from synth_core.validation.supervisor.provers import Provers

            trusted = serving.prepare(configuration.cache, configuration.device, visible)
            body = run.capture_program
            provers = Provers(
                box,
                limits,
                trusted,
                self._done,
                (*toolchain.roots(), f"{configuration.cache}/headers"),
                configuration.device,
            )
        self._scheduler = Scheduler(
            box,
            limits,
            configuration.workers,
            body,
            run.draw_program,
            provers,
            self._started,
            self._done,
        )
        gc.collect()
        gc.freeze()
        if provers:
            provers.prove()
        self._owner.say({"ready": {"tier": box.tier, "refusals": list(box.refusals), **facts}})

    def serve(self) -> None:
        wake, signalled = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(signalled, False)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while not self._owner.ended:
            calls = {
                **self._scheduler.watched(),
                self._owner.fileno(): self._take,
                wake: lambda: os.read(wake, 65536),
            }
            waiting = self._owner.has_unsent or not self._scheduler.idle
            for call in _ready(calls, TICK if waiting else None):
                with contextlib.suppress(BlockingIOError):
                    call()
            self._owner.send()
            self._scheduler.advance()
        self._scheduler.close()
        self._box.groups.close()

    def _take(self) -> None:
        from synth_core.validation.supervisor.job import Job

        for line, (program, question) in self._owner.take():
            job = json.loads(line)
            self._scheduler.submit(Job(job["id"], job["stage"], program, question, job.get("text", "")))

    def _started(self, job: Job) -> None:
        self._owner.say({"id": job.id, "started": True})

    def _done(self, job: Job, answer: dict[str, Any], file: int) -> None:
        """file: the judgement, what a child wrote, or the last that it printed. It is not read here."""
        job.close()
        self._owner.say({"id": job.id, "seconds": job.seconds, **answer}, file)


def _ready(calls: dict[int, Callable[[], object]], timeout: float | None) -> list[Callable[[], object]]:
    """The calls whose descriptors can be read within `timeout` seconds."""
    poll = select.poll()
    for descriptor in calls:
        poll.register(descriptor, select.POLLIN)
    return [calls[fd] for fd, _ in poll.poll(None if timeout is None else timeout * 1000)]


if __name__ == "__main__":
    main()
