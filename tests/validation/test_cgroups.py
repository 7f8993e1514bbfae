"""Control groups: a cap on memory that no limit of a process counts, and whether it was reached."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from synth_core.validation.sandbox import cgroups
from synth_core.validation.sandbox.files import anonymous_file

MEGABYTE = 2**20
SLOT = "program-1"


@pytest.fixture
def groups() -> Iterator[cgroups.Groups]:
    found = cgroups.find()
    yield found
    folders = [Path(os.readlink(f"/proc/self/fd/{folder}")) for folder, _ in found.folders]
    found.close()
    assert not [folder for folder in folders if folder.exists()], "folders are left behind"


def end_of(groups: cgroups.Groups, memory: int) -> int:
    """How a process in a group of its own ended that wrote 96 MiB to a file in memory."""
    process = os.fork()
    if process == 0:
        try:
            groups.join(SLOT, memory, 16)
            file = anonymous_file("large")
            for _ in range(96):
                os.write(file, bytes(MEGABYTE))
        finally:
            os._exit(0)
    return os.waitpid(process, 0)[1]


def test_memory_in_files_is_capped(groups: cgroups.Groups) -> None:
    if not any("memory" in limits for _, limits in groups.folders):
        pytest.skip("this machine lends no control group for memory")
    assert end_of(groups, 512 * MEGABYTE) == 0
    assert groups.leave(SLOT) is False
    assert os.WTERMSIG(end_of(groups, 48 * MEGABYTE)) == signal.SIGKILL
    assert groups.leave(SLOT) is True


@pytest.mark.parametrize(
    ("file", "text", "killed"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n", True),
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\n", False),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", True),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
    ],
)
def test_both_versions_of_the_kernel_s_files_are_read(
    file: str, text: str, killed: bool, tmp_path: Path
) -> None:
    (tmp_path / SLOT).mkdir()
    (tmp_path / SLOT / file).write_text(text)
    folder = os.open(tmp_path, os.O_RDONLY)
    assert cgroups.Groups([(folder, {"memory": "memory.max"})]).leave(SLOT) is killed
    os.close(folder)


def test_a_process_joins_with_the_limits_that_its_folder_has(tmp_path: Path) -> None:
    (tmp_path / SLOT).mkdir()
    for name in ("memory.max", "pids.max", "cgroup.procs"):
        (tmp_path / SLOT / name).touch()
    folder = os.open(tmp_path, os.O_RDONLY)
    cgroups.Groups([(folder, {"memory": "memory.max", "pids": "pids.max"})]).join(SLOT, MEGABYTE, 7)
    os.close(folder)
    written = {path.name: path.read_text() for path in (tmp_path / SLOT).iterdir()}
    assert written == {"memory.max": str(MEGABYTE), "pids.max": "7", "cgroup.procs": "0"}


def test_without_a_folder_nothing_is_joined_and_nothing_fails() -> None:
    nothing = cgroups.Groups()
    nothing.join(SLOT, MEGABYTE, 7)
    assert nothing.leave(SLOT) is False
    nothing.close()
