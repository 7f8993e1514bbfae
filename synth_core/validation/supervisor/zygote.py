"""The warm process that programs are forked from; it supervises them and never runs one.

The engine runs it with `python -m`, with no key in its environment. Line one of stdin configures it; each
further line is a job, each line of stdout a judgement. It imports torch and compiles one small program once,
and every fork inherits that. It runs one thread. When stdin ends, it ends with all its children.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict

from synth_core.errors import SynthError, UsageError
from synth_core.records import Stage, Tier
from synth_core.validation.sandbox import confine, linux, namespaces
from synth_core.validation.sandbox.confine import Limits, Sandbox

if TYPE_CHECKING:  # torch comes with it, and must not be here before the namespaces
    from synth_core.validation.supervisor.job import Job

TICK: Final = 0.05
"""Seconds between two looks at limits while something runs."""
_JUDGE_SLOT: Final = 900


class Configuration(BaseModel):
    """Line one of stdin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scratch: str
    parent: int
    cache: str
    workers: int
    timeout: float
    memory_mb: int
    device: str = "cpu"
    strongest: Tier = Tier.A
    allow_unsandboxed: bool = False


def main() -> None:
    """Serve until stdin ends. A failed start is one line `{"failed": …}`."""
    replies = os.dup(1)
    os.dup2(2, 1)
    reader = Lines(0)
    configuration = Configuration.model_validate_json(reader.first())
    if linux.LINUX:
        linux.die_with_parent(configuration.parent)
    try:
        box = _enter(configuration)
        zygote = _Zygote(configuration, box, reader, replies)
    except (SynthError, OSError) as error:
        usage = isinstance(error, UsageError)
        _say(replies, {"failed": str(error), "usage": usage})
        raise SystemExit(1) from None
    zygote.serve()


class Lines:
    """Lines of a descriptor, read without blocking for the rest of one."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._pending = b""

    def first(self) -> bytes:
        while not (lines := self.take()):
            if self.ended:
                raise SystemExit(0)
        self._pending = b"".join(line + b"\n" for line in lines[1:]) + self._pending
        return lines[0]

    def take(self) -> list[bytes]:
        """Read what is there; return the lines that are whole by now."""
        part = os.read(self.descriptor, 2**20)
        self.ended = not part
        *lines, self._pending = (self._pending + part).split(b"\n")
        return lines


def _enter(configuration: Configuration) -> Sandbox:
    """Probe what this machine allows and enter the namespaces, before anything large is imported."""
    for folder in (configuration.scratch, configuration.cache):
        os.makedirs(folder, exist_ok=True)
    os.chmod(configuration.scratch, 0o755)
    box = confine.probe(configuration.scratch, (configuration.cache,), configuration.strongest)
    if box.tier is Tier.C and not configuration.allow_unsandboxed:
        raise UsageError(
            "no sandbox works here, and programs are untrusted; --allow-unsandboxed runs them with resource"
            f" limits alone ({'; '.join(box.refusals)})"
        )
    if box.namespaces:
        namespaces.enter(box.scratch, (configuration.cache,))
    return box


class _Zygote:
    def __init__(self, configuration: Configuration, box: Sandbox, reader: Lines, replies: int) -> None:
        self._configuration, self._box, self._reader, self._replies = configuration, box, reader, replies
        self._limits = Limits(configuration.timeout, configuration.memory_mb)
        os.environ |= {
            "TMPDIR": box.scratch,
            "TORCHINDUCTOR_CACHE_DIR": f"{configuration.cache}/inductor",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        if configuration.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Inductor would ask Triton about a GPU that nobody uses
        from synth_core.validation.inside import warm
        from synth_core.validation.judge.process import Judges
        from synth_core.validation.supervisor.builds import Builder
        from synth_core.validation.supervisor.scheduler import Scheduler
        from synth_core.validation.supervisor.units import find_compiler

        if configuration.device == "cuda":
            warm.require_gpu()
        compiler = find_compiler(f"{configuration.cache}/headers") if configuration.device == "cpu" else None
        facts = warm.up(configuration.device)
        self._judges = Judges(box, _JUDGE_SLOT, configuration.workers)
        self._scheduler = Scheduler(
            box, Builder(box, compiler), self._judges, configuration.workers, self._started, self._done
        )
        if configuration.device == "cuda":
            self._scheduler.pool.prove()
        gc.collect()
        gc.freeze()
        self._reply(ready={"tier": box.tier, "refusals": list(box.refusals), **facts})

    def serve(self) -> None:
        wake, signalled = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(signalled, False)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while not self._reader.ended:
            calls = {
                **self._scheduler.watched(),
                **self._judges.watched(),
                self._reader.descriptor: self._take,
                wake: lambda: os.read(wake, 65536),
            }
            for call in _ready(calls, None if self._scheduler.idle else TICK):
                with contextlib.suppress(BlockingIOError):
                    call()
            self._judges.watch(time.monotonic())
            self._scheduler.advance()
        self._scheduler.close()

    def _take(self) -> None:
        from synth_core.validation.supervisor.job import Job

        for line in self._reader.take():
            job = json.loads(line)
            rejudge = job["rejudge"]
            self._scheduler.submit(
                Job(job["id"], Stage(job["stage"]), job["request"], self._limits, rejudge=rejudge)
            )

    def _started(self, job: Job) -> None:
        self._reply(id=job.id)

    def _done(self, job: Job, judgement: dict[str, Any]) -> None:
        """Pass a judgement on, unless this program is to be judged again alone."""
        if judgement["passed"] and job.shared and job.rejudge:
            job.alone, job.shared = True, False
            self._scheduler.submit(job)
            return
        self._reply(id=job.id, judgement=judgement, alone=job.alone, seconds=job.seconds)

    def _reply(self, **message: Any) -> None:
        _say(self._replies, message)


def _ready(calls: dict[int, Callable[[], object]], timeout: float | None) -> list[Callable[[], object]]:
    """The calls whose descriptors can be read now, or within `timeout` seconds."""
    poll = select.poll()
    for descriptor in calls:
        poll.register(descriptor, select.POLLIN)
    return [calls[fd] for fd, _ in poll.poll(None if timeout is None else timeout * 1000)]


def _say(descriptor: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main()
