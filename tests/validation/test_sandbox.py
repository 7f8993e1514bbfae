"""What a confined process can and cannot do, tried from inside, in every tier this machine has."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth_core.records import Tier
from synth_core.validation.evidence import Observation
from synth_core.validation.sandbox import confine, namespaces, process, seccomp
from synth_core.validation.sandbox.confine import Limits, Sandbox
from synth_core.validation.sandbox.seccomp import Profile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the mechanisms are Linux's")

SECRET = "hunter2"


@pytest.fixture(scope="module", params=[Tier.A, Tier.B])
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    scratch = tmp_path_factory.mktemp("scratch")
    found = confine.probe(str(scratch), (), request.param)
    if found.tier is not request.param:
        pytest.skip(f"no tier {request.param} here: {'; '.join(found.refusals)}")
    return found


def inside(box: Sandbox, body: Callable[[], Any], *, seconds: float = 20, data_mb: int = 512) -> Observation:
    """Run `body` confined, and print its result or its exception from there.

    What this process holds by now, after other tests, is not counted.
    """
    me = os.getpid()
    limits = Limits(seconds, data_mb, process.data_kb(me), process.resident_kb(me))

    def report() -> None:
        try:
            said = repr(body())
        except Exception as error:
            said = f"{type(error).__name__} {error}"
        os.write(1, said.encode())

    receive, send = os.pipe()
    middle = os.fork()
    if middle == 0:  # the namespaces would keep this process otherwise
        try:
            if box.namespaces:
                namespaces.enter(box.scratch, ())
            running = process.start(box, Profile.PROGRAM, limits, 1, report)
            while (ended := os.waitpid(running.pid, os.WNOHANG))[0] == 0:
                running.drain()
                running.watch(time.monotonic(), "" if box.namespaces else f"{box.scratch}/program-1")
                time.sleep(0.01)
            os.write(send, repr(running.reaped(ended[1])).encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        said = pipe.read()
    os.waitpid(middle, 0)
    shutil.rmtree(f"{box.scratch}/program-1", ignore_errors=True)
    observed: Observation = eval(said, {"Observation": Observation})
    return observed


def test_ordinary_work_goes_on(box: Sandbox) -> None:
    def work() -> int:
        Path("note").write_text("text")
        thread = threading.Thread(target=lambda: os.listdir("."))
        thread.start()
        thread.join()
        import colorsys  # a module that nobody has imported yet is still found

        return len(os.listdir(".")) + len(colorsys.__name__)

    observed = inside(box, work)
    assert observed.output.strip() == "9"
    assert observed.finished


def _kill(pid: int) -> Callable[[], object]:
    return lambda: os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "attempt",
    [
        socket.socket,
        lambda: socket.socket(socket.AF_UNIX),
        socket.socketpair,
        os.fork,
        lambda: subprocess.run(["/bin/true"]),
        lambda: os.execv("/bin/true", ["true"]),
        _kill(-1),
        _kill(1),
        lambda: os.kill(os.getppid(), 0),
        lambda: namespaces.private_scratch("/tmp", 1, 0),
        lambda: __import__("resource").prlimit(1, 0),
    ],
)  # fmt: skip
def test_forbidden_calls_end_the_process_and_are_seen(box: Sandbox, attempt: Callable[[], object]) -> None:
    observed = inside(box, attempt)
    assert observed.violation, observed
    assert not observed.finished


@pytest.mark.parametrize("where", ["/etc/passwd", "/", "/root", "/home", "/proc", "/proc/1/environ", "/tmp"])
def test_the_rest_of_the_disk_cannot_be_read(box: Sandbox, where: str) -> None:
    def look() -> object:
        return os.listdir(where) if os.path.isdir(where) else Path(where).read_bytes()

    observed = inside(box, look)
    assert "PermissionError" in observed.output or "FileNotFoundError" in observed.output, observed


def test_a_file_outside_can_be_neither_read_nor_changed(box: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    before = secret.stat()
    attempts: list[Callable[[], object]] = [
        secret.read_text,
        lambda: secret.write_text(""),
        secret.unlink,
        lambda: secret.rename("mine"),
        lambda: os.link(secret, "mine"),
        lambda: os.truncate(secret, 0),
        lambda: os.chmod(secret, 0o777),
        lambda: os.utime(secret, (0, 0)),
        lambda: os.symlink(secret, "way"),
        Path("way").read_text,
    ]

    def all_of_them() -> list[str]:
        said = []
        for attempt in attempts:
            try:
                said.append(str(attempt()))
            except OSError as error:
                said.append(type(error).__name__)
        return said

    observed = inside(box, all_of_them)
    assert observed.finished
    assert SECRET not in observed.output
    after = secret.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_size) == (before.st_mode, before.st_mtime_ns, 7)


def test_the_environment_is_clean(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", SECRET)
    observed = inside(box, lambda: sorted(os.environ.values()))
    assert observed.finished
    assert SECRET not in observed.output


def test_memory_is_limited(box: Sandbox) -> None:
    observed = inside(box, lambda: len(bytearray(2**30 + 2**29)))
    assert "MemoryError" in observed.output


def test_shared_memory_counts_as_well(box: Sandbox) -> None:
    import mmap

    def fill() -> None:
        region = mmap.mmap(-1, 2**30)
        for page in range(0, len(region), 4096):
            region[page] = 1
        time.sleep(5)

    assert inside(box, fill, data_mb=256).out_of_memory


def test_the_disk_is_limited(box: Sandbox) -> None:
    def fill() -> None:
        for i in range(8):
            with open(f"file{i}", "wb") as file:  # in small parts: memory has a limit of its own
                for _ in range(100):
                    file.write(bytes(2**20))
        time.sleep(5)

    observed = inside(box, fill)
    assert "No space left" in observed.output or "256 MiB" in observed.violation, observed


def test_output_without_end_is_cut_off(box: Sandbox) -> None:
    observed = inside(box, lambda: [os.write(1, bytes(65536)) for _ in range(10**6)])
    assert "16 MiB" in observed.violation


def test_time_is_limited(box: Sandbox) -> None:
    started = time.monotonic()
    observed = inside(box, lambda: time.sleep(60), seconds=0.5)
    assert observed.timed_out
    assert observed.seconds < 1.5
    assert time.monotonic() - started < 30


def test_tier_c_is_what_remains_without_the_kernels_help(tmp_path: Path) -> None:
    assert confine.probe(str(tmp_path), (), Tier.C).tier is Tier.C


def test_numbers_of_system_calls_hold_on_both_processors() -> None:
    """A filter must fit the kernel's limit and its short jumps on either architecture."""
    for machine in ("x86_64", "aarch64"):
        for profile in Profile:
            code = seccomp._filter(profile, machine, 4242)
            assert len(code) < 4096
            for at, (_, yes, no, _) in enumerate(code):
                assert at + max(yes, no) < len(code)
                assert 0 <= min(yes, no) <= max(yes, no) < 256
