"""The private server: it starts again when it dies, and dies when its parent does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from flows.prefect_server.children import open_log
from flows.prefect_server.server import Server, private_server
from flows.prefect_server.up import _supervise
from synth_core.errors import EnvironmentFault


def healthy(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/health", timeout=60) as answer:
        return bool(json.loads(answer.read()) is True)


def gone(pid: int, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_is_started_again_on_the_same_address_and_ends_with_the_block(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").write_bytes(b"left half made by a server that was killed")
    with Server(tmp_path) as server:
        first = server.pid
        os.kill(first, signal.SIGKILL)  # while it makes its tables, even
        assert healthy(server.url)
        assert server.pid != first
    assert gone(server.pid)


def test_one_that_never_comes_to_life_ends_the_block_in_one_line(tmp_path: Path) -> None:
    line = r"died 3 times \(.*SQLAlchemy URL.*\); see .*server\.log"
    said: list[str] = []

    def use_it() -> None:
        with Server(tmp_path, options={"PREFECT_SERVER_DATABASE_CONNECTION_URL": "nonsense"}) as server:
            with pytest.raises(EnvironmentFault, match=line):
                _supervise(server, [], said.append)  # what `synth up` does while all is well
            healthy(server.url)  # what a run does: it is refused, for there is nothing to wait for

    with pytest.raises(EnvironmentFault, match=line):
        use_it()
    assert 1 <= len(said) <= 3
    assert (tmp_path / "server.log").read_text().count("Traceback") >= 3, "each life's last words stay"


def test_a_log_is_gone_on_with_and_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    for life in range(40):
        with open_log(path) as log:
            log.write(b"%d" % life + bytes(100_000))
    kept = b"".join(each.read_bytes() for each in sorted(tmp_path.iterdir(), reverse=True))
    assert kept.endswith(b"39" + bytes(100_000))
    assert b"30" in kept
    assert len(kept) < 3 * 2**20


def test_a_second_run_in_the_same_folder_gets_a_server_of_its_own(tmp_path: Path) -> None:
    with private_server(tmp_path) as first, private_server(tmp_path) as second:
        assert first.home.is_relative_to(tmp_path)
        assert not second.home.is_relative_to(tmp_path)
        temporary = second.home
    assert not temporary.exists()


def test_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from flows.prefect_server.server import Server\n"
        "with Server(Path(sys.argv[1])) as server:\n"
        "    print(server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    assert gone(child)


def test_is_told_no_key_and_no_other_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "secret-of-the-user")
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere.invalid/api")
    with Server(tmp_path) as server:
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"secret-of-the-user" not in environment
    assert b"elsewhere" not in environment
