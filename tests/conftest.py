"""Shared by all rooms: a cache folder that is warm already."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from synth_core.settings import ValidationSettings
from synth_core.validation.engine import Engine

WarmUp = Callable[..., Path]


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
        for part in ("headers", "inductor"):
            locks = shutil.ignore_patterns("lock", "locks")
            shutil.copytree(_warm / part, cache / part, ignore=locks, copy_function=copy)
        return cache

    return give
