"""What a confined process can and cannot do, tried from inside, in every tier this machine has."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from synth_core.records import Tier
from synth_core.validation.evidence import Observation
from synth_core.validation.sandbox import confine, files, namespaces, process, seccomp, usage
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


@dataclass
class Seen:
    """What a confined process came to, and what it printed last."""

    observed: Observation
    output: str


def inside(box: Sandbox, body: Callable[[], Any], *, seconds: float = 20, data_mb: int = 512) -> Seen:
    """Run `body` confined, and print its result or its exception from there.

    What this process holds by now, after other tests, is not counted.
    """
    me = os.getpid()
    limits = Limits(seconds, data_mb, usage.data_kb(me), usage.resident_kb(me))

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
                namespaces.enter(box.scratch, (), confine.visible())
            running = process.start(box, Profile.PROGRAM, limits, 1, report)
            while (ended := os.waitpid(running.pid, os.WNOHANG))[0] == 0:
                running.drain()
                running.watch(time.monotonic(), "" if box.namespaces else f"{box.scratch}/program-1")
                time.sleep(0.01)
            observed = running.reaped(ended[1])
            os.write(send, repr((observed, running.last_words().decode(errors="replace"))).encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        said = pipe.read()
    os.waitpid(middle, 0)
    shutil.rmtree(f"{box.scratch}/program-1", ignore_errors=True)
    return Seen(*eval(said, {"Observation": Observation}))


def test_ordinary_work_goes_on(box: Sandbox) -> None:
    def work() -> int:
        Path("note").write_text("text")
        import colorsys  # a module that nobody has imported yet is still found

        return len(os.listdir(".")) + len(colorsys.__name__)

    observed = inside(box, work)
    assert observed.output.strip() == "9"
    assert observed.observed.finished


def test_threads_are_refused(box: Sandbox) -> None:
    seen = inside(box, threading.Thread(target=time.sleep).start)
    assert "can't start new thread" in seen.output
    assert seen.observed.finished


def test_an_unknown_call_fails_as_on_a_kernel_that_lacks_it(box: Sandbox) -> None:
    seen = inside(box, lambda: os.memfd_create("x"))
    assert "Function not implemented" in seen.output


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
    assert observed.observed.violation, observed
    assert not observed.observed.finished


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
    assert observed.observed.finished
    assert SECRET not in observed.output
    after = secret.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_size) == (before.st_mode, before.st_mtime_ns, 7)


def test_the_environment_is_clean(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", SECRET)
    observed = inside(box, lambda: sorted(os.environ.values()))
    assert observed.observed.finished
    assert SECRET not in observed.output


def test_memory_is_limited(box: Sandbox) -> None:
    observed = inside(box, lambda: len(bytearray(2**30 + 2**29)))
    assert "MemoryError" in observed.output


def test_shared_memory_counts_as_well(box: Sandbox) -> None:
    def fill() -> None:
        region = mmap.mmap(-1, 2**30)
        for page in range(0, len(region), 4096):
            region[page] = 1
        time.sleep(5)

    assert inside(box, fill, data_mb=256).observed.out_of_memory


def test_the_disk_is_limited(box: Sandbox) -> None:
    def fill() -> None:
        for i in range(8):
            with open(f"file{i}", "wb") as file:  # in small parts: memory has a limit of its own
                for _ in range(100):
                    file.write(bytes(2**20))
        time.sleep(5)

    observed = inside(box, fill)
    assert "No space left" in observed.output or "256 MiB" in observed.observed.violation, observed


def test_output_without_end_is_cut_off(box: Sandbox) -> None:
    observed = inside(box, lambda: [os.write(1, bytes(65536)) for _ in range(10**6)])
    assert "16 MiB" in observed.observed.violation


def _spin() -> None:
    while True:
        pass


@pytest.mark.parametrize("body", [lambda: time.sleep(600), _spin], ids=["asleep", "awake"])
def test_time_is_limited(box: Sandbox, body: Callable[[], None]) -> None:
    assert inside(box, body, seconds=0.5).observed.timed_out


def test_waiting_for_a_busy_processor_costs_no_time(box: Sandbox) -> None:
    """Beside six busy processes a second of work takes several, and is no timeout."""

    def work() -> str:
        end = time.process_time() + 1.0
        while time.process_time() < end:
            pass
        return "done"

    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
    try:
        seen = inside(box, work, seconds=1.5)
    finally:
        for one in busy:
            one.kill()
            one.wait()
    assert "done" in seen.output, seen


def test_the_sizes_of_other_files_cannot_be_read(box: Sandbox, tmp_path: Path) -> None:
    if not box.namespaces:
        pytest.skip("Landlock alone does not cover metadata")
    (tmp_path / "secret").write_text("12345")
    paths = [str(tmp_path / "secret"), "/etc/shadow", "/etc/hostname", str(Path.home() / ".ssh"), "/var/log"]
    seen = inside(box, lambda: [os.path.lexists(path) for path in paths])
    assert seen.output == str([False] * len(paths))


def test_memory_in_files_counts(box: Sandbox) -> None:
    """Evidence lies in memory that no limit of the process itself counts."""
    evidence = files.anonymous_file("evidence")
    limits = Limits(20, 256, usage.data_kb(os.getpid()), usage.resident_kb(os.getpid()))

    def fill() -> None:
        for _ in range(200):
            os.write(process.EVIDENCE, bytes(2**20))
        held = bytearray(os.urandom(2**20) * 100)
        time.sleep(60 + len(held) % 2)

    here = replace(box, namespaces=False, own_uids=False)
    running = process.start(here, Profile.PROGRAM, limits, 2, fill, (evidence,))
    running.evidence = (evidence,)
    while (ended := os.waitpid(running.pid, os.WNOHANG))[0] == 0:
        running.watch(time.monotonic())
        time.sleep(0.01)
    assert running.reaped(ended[1]).out_of_memory
    os.close(evidence)


def test_what_is_sealed_stays(box: Sandbox) -> None:
    """A program that still maps its evidence to write is seen; one that does not can't change it later."""
    kept = files.anonymous_file("evidence")
    os.write(kept, bytes(4096))
    region = mmap.mmap(kept, 4096)
    with pytest.raises(OSError, match="busy"):
        files.seal(kept)
    region.close()
    files.seal(kept)
    for change in (
        lambda: os.write(kept, b"x"),
        lambda: os.ftruncate(kept, 0),
        lambda: mmap.mmap(kept, 4096),
    ):
        with pytest.raises(PermissionError):
            change()
    os.close(kept)


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
