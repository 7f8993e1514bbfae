"""Shared by all rooms: a cache folder that is warm already, and the order in which files are run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from synth_core.settings import ValidationSettings
from synth_core.validation.engine import Engine

WarmUp = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with the most slow tests first.

    A long file that starts last would leave every other process of pytest-xdist idle.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def _link(source: str, target: str) -> None:
    """The same file in a second place; a temporary one of another engine may be gone by now."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)


@pytest.fixture(scope="session")
def _warm() -> Path:
    """The cache folder of every engine that was given none, once an engine has started with it."""
    folder = Path(tempfile.gettempdir()) / f"synth-cache-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with (folder / "tests.lock").open("w") as lock:  # of several pytest processes one works, others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Engine(ValidationSettings(allow_unsandboxed=True), workers=1) as engine:
            engine.probe()
    return folder


@pytest.fixture(scope="session")
def warm_up(_warm: Path) -> WarmUp:
    """Gives a cache folder what the first engine to start with it would spend 20 CPU seconds on.

    That is Inductor's precompiled header and the library of the engine's own sample program; no verdicts.
    An empty folder is proved to do by tests/cli/test_main_job.py.
    """

    def give(cache: Path, copy: Callable[[str, str], object] = _link) -> Path:
        # Of headers that other releases of torch or other checkouts left there, the one just used.
        used = max(_warm.glob("headers/*/lock"), key=lambda lock: lock.stat().st_mtime).parent
        for folder in (used, _warm / "inductor"):
            locks = shutil.ignore_patterns("lock", "locks")
            target = cache / folder.relative_to(_warm)
            shutil.copytree(folder, target, ignore=locks, copy_function=copy)
        return cache

    return give
