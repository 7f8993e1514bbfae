"""Hostile programs, and what must not have happened on the host.

Every file of `hostile/` is a program that tries something (`# tries:`) and says what must never come of it
(`# never:`); `# verdict: rejected` where the program must not be accepted either, `# verdict: no "text"` for
a text that its verdict must not hold. `@NAME@` in a program stands for something real on this host: a secret,
a file, a listener, a process. Each run hands all of them to one engine, honest programs among them, and then
looks at the host. It is done with the static gate, and without it in both tiers: then the sandbox is tested.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from attacks import CPU_SECONDS, MEGABYTES, candidate, supervisors

from synth_core.records import Candidate, Category, Tier
from synth_core.settings import ValidationSettings
from synth_core.validation.engine import Engine
from synth_core.validation.gate import check_source

HOSTILE = Path(__file__).parents[1] / "hostile"
FILES = sorted(HOSTILE.glob("*.py"))
HONEST = (Path(__file__).parents[1] / "corpus" / "duplicate_original.py").read_text()
TIMEOUT = 8.0
CONTENT = "the canary sings"

RUNS = {"gate": ((), Tier.A), "tier A": (("static",), Tier.A), "tier B": (("static",), Tier.B)}
PASS_THE_GATE = set(
    """
    awake_for_ever end_by_system_exit escape_in_an_exception forge_by_message forge_compile_replaced
    forge_outputs_after_capture memory_of_one other_after_calls other_by_address other_by_hash
    other_by_its_name other_by_order_of_a_set other_in_a_global output_without_end text_in_latin_1
    text_in_other_letters text_in_utf_7 text_of_a_long_sum
    """.split()  # noqa: SIM905
)
GATE_CATEGORIES = {Category.DISALLOWED_IMPORT, Category.SYNTAX_ERROR, Category.CONTRACT_VIOLATION}
ONLY_TIER_A = {"size_of_a_secret", "names_of_the_host"}
"""Without namespaces nothing hides the metadata of files (LIMITATIONS)."""


def header(file: Path, key: str) -> str:
    found = re.search(rf"^# {key}: (.*)$", file.read_text(), re.MULTILINE)
    return found[1] if found else ""


@dataclass
class Host:
    """What there is to attack. Its files are open to all: the sandbox must protect them, not their modes."""

    root: Path
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    mark: str = field(default_factory=lambda: f"hostile-{secrets.token_hex(8)}")
    heard: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def canary(self) -> Path:
        return self.root / "canary"

    @property
    def folder(self) -> Path:
        return self.root / "folder"

    def program(self, file: Path) -> str:
        return re.sub(r"@([A-Z_]+)@", lambda match: self.names[match[1]], file.read_text())


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    # Not pytest's own folder, which nobody else may enter.
    root = Path(tempfile.mkdtemp(prefix="synth-test-"))
    host = Host(root)
    for folder in (root, host.folder, root / "temporary"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
    secret_file = root / "secret"
    for path, text in ((secret_file, host.secret), (host.canary, CONTENT)):
        path.write_text(text)
        path.chmod(0o666)
        os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(tempfile, "tempdir", str(root / "temporary"))
    monkeypatch.setenv("GEMINI_API_KEY", host.secret)
    sleeper = [sys.executable, "-c", "import time; time.sleep(3600)"]
    with contextlib.ExitStack() as stack:
        victim = stack.enter_context(subprocess.Popen(sleeper))
        stack.callback(victim.kill)
        ports = _listen(host, stack)
        host.names = ports | {
            "SECRET": host.secret,
            "SECRET_FILE": str(secret_file),
            "CANARY": str(host.canary),
            "FOLDER": str(host.folder),
            "MARK": host.mark,
            "HOME": str(Path.home()),
            "CACHE": str(root / "cache"),
            "VICTIM": str(victim.pid),
            "ENGINE": str(os.getpid()),
        }
        yield host
        assert victim.poll() is None, "the victim is dead"
    shutil.rmtree(root)


def _listen(host: Host, stack: contextlib.ExitStack) -> dict[str, str]:
    """Listeners of every kind that put what they hear on `host.heard`, and a port that nothing uses."""
    unix = str(host.root / "socket")
    listeners: dict[str, tuple[int, int, tuple[str, int] | str]] = {
        "TCP": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        "UDP": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        "UNIX": (socket.AF_UNIX, socket.SOCK_STREAM, unix),
        "ABSTRACT": (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{host.mark}"),
    }
    names = {"UNIX": unix}
    for name, (family, kind, address) in listeners.items():
        listener = stack.enter_context(socket.socket(family, kind))
        listener.bind(address)
        if family is socket.AF_INET:
            names[name] = str(listener.getsockname()[1])
        if kind is socket.SOCK_STREAM:
            listener.listen()
        stack.callback(listener.shutdown, socket.SHUT_RDWR) if kind is socket.SOCK_STREAM else None
        threading.Thread(target=_hear, args=(host, name, listener, kind), daemon=True).start()
    os.chmod(unix, 0o777)
    with socket.socket() as spare:
        spare.bind(("127.0.0.1", 0))
        names["SPARE"] = str(spare.getsockname()[1])
    return names


def _hear(host: Host, name: str, listener: socket.socket, kind: int) -> None:
    while True:
        try:
            listener.accept() if kind is socket.SOCK_STREAM else listener.recv(64)
        except OSError:
            return
        host.heard.append(name)


def candidates(host: Host) -> list[Candidate]:
    """Every hostile program, and an honest one after each tenth and at the end."""
    texts: list[tuple[str, str]] = []
    for index, file in enumerate(FILES):
        text = host.program(file)
        named = re.search(r"class (SynthModel\w*)", text)
        texts.append((named[1] if named else "SynthModel_Linear", text))
        if index % 10 == 9 or file is FILES[-1]:
            # Another text each time, so that no cache answers for it.
            texts.append(("SynthModel_Linear_Tanh", f"{HONEST}\n# number {index}\n"))
    return [candidate(index, text, name) for index, (name, text) in enumerate(texts)]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("run", RUNS)
def test_nothing_happens_on_the_host(run: str, host: Host, warm_up: Callable[..., Path]) -> None:
    warm_up(host.root / "cache", shutil.copy2)  # nothing that another test would share with a hostile program
    skipped, tier = RUNS[run]
    settings = ValidationSettings(timeout=TIMEOUT, memory_mb=1024, skip_checks=skipped)
    memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Engine(settings, 2, str(host.root / "cache"), strongest=tier) as engine:
        if engine.tier > tier:
            pytest.skip(f"this machine allows tier {engine.tier} only")
        done = engine.validate_compile(engine.validate_eager(candidates(host)))
        taken = [supervisor.taken() for supervisor in supervisors(os.getpid())]
    time.sleep(1.0)

    hostile = [one for one in done if one.program and "# tries" in one.program.source]
    honest = [one for one in done if one.program and "# number" in one.program.source]
    assert [one.failure.detail for one in honest if one.failure] == []
    wrong = [
        line
        for file, one in zip(FILES, hostile, strict=True)
        if tier is Tier.A or file.stem not in ONLY_TIER_A
        for line in _wrong_verdict(file, one, host)
    ]
    assert wrong == []
    assert all(cpu < CPU_SECONDS * len(FILES) and megabytes < MEGABYTES for cpu, megabytes in taken), taken

    assert host.heard == [], "somebody connected"
    assert _canary(host) == (CONTENT, 0o666, 1e9, 1)
    assert list(host.folder.iterdir()) == []
    assert _marks(host) == []
    assert _orphans() == []
    assert host.names["SPARE"] not in _listening()
    assert int(host.names["SPARE"]) not in _shared_memory_keys()
    assert list((host.root / "temporary").iterdir()) == [], "the engine left its scratch"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before
    assert grown < 200 * 1024, "KiB that this process has grown by"


def _wrong_verdict(file: Path, one: Candidate, host: Host) -> Iterator[str]:
    said = "".join(verdict.model_dump_json() for verdict in one.verdicts)
    wanted = header(file, "verdict")
    if host.secret in said:
        yield f"{file.name}: the secret is in its verdict"
    if one.failure and not one.failure.detail.isprintable():
        yield f"{file.name}: its verdict is not printable"
    if wanted == "rejected" and one.alive:
        yield f"{file.name}: accepted"
    if wanted.startswith("no ") and wanted[3:].strip('"') in said:
        yield f"{file.name}: says {wanted[3:]}"


def _canary(host: Host) -> tuple[str, int, float, int]:
    status = host.canary.stat()
    assert os.listxattr(host.canary) == []
    return host.canary.read_text(), status.st_mode & 0o777, status.st_mtime, status.st_nlink


def _marks(host: Host) -> list[str]:
    """Files named with this host's mark, wherever the programs tried to put them."""
    places = [Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path.home(), Path.cwd(), host.root]
    packages = Path(sys.prefix) / "lib"
    found = [path for place in places for path in place.glob(f"{host.mark}*")]
    for place in (packages, host.root / "cache"):
        found += place.rglob(f"{host.mark}*")
    return [str(path) for path in found]


def _orphans() -> list[str]:
    """Processes of an engine that is closed: their parent is gone, or is this process."""
    left = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            parent = int(re.search(r"^PPid:\s+(\d+)", status.read_text(), re.MULTILINE)[1])  # type: ignore[index]
            command = (status.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if "synth_core.validation.supervisor.zygote" in command and parent in (1, os.getpid()):
                left.append(f"{status.parent.name}: {command}")
    return left


def _listening() -> set[str]:
    """Local TCP ports that something listens on."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {str(int(row.split()[1].split(":")[1], 16)) for row in rows if row.split()[3] == "0A"}


def _shared_memory_keys() -> set[int]:
    return {int(row.split()[0]) for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


def test_the_corpus_is_large_enough_and_says_what_it_does() -> None:
    assert len(FILES) >= 40
    assert all(header(file, "tries") and header(file, "never") for file in FILES)


def test_the_gate_refuses_what_reaches_out(host: Host) -> None:
    """Early and on the host: nothing is started for these. What it lets pass is the sandbox's to stop."""
    passed = {file.stem for file in FILES if check_source(host.program(file)) is None}
    assert passed == PASS_THE_GATE
    for file in FILES:
        failure = check_source(host.program(file))
        assert failure is None or failure["category"] in GATE_CATEGORIES
