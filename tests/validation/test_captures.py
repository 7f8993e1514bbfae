"""Captured graphs that wait for the compile stage: bounded, and each open file closed in the end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from synth_core.validation.sandbox.files import anonymous_file, contents
from synth_core.validation.supervisor import captures
from synth_core.validation.supervisor.captures import Captures


@pytest.fixture
def kept() -> Iterator[Captures]:
    before = len(os.listdir("/proc/self/fd"))
    made = Captures()
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


def keep(kept: Captures, text: str, data: bytes) -> None:
    file = anonymous_file("captured", data)
    kept.keep(text, file)
    os.close(file)


def took(kept: Captures, text: str) -> bytes | None:
    file = kept.take(text)
    if file is None:
        return None
    data = contents(file, 100)
    os.close(file)
    return data


def test_a_capture_is_that_of_its_text(kept: Captures) -> None:
    keep(kept, "one", b"1")
    keep(kept, "two", b"2")
    keep(kept, "", b"of a text without a hash")
    assert [took(kept, text) for text in ("one", "two", "three", "")] == [b"1", b"2", None, None]
    assert took(kept, "one") == b"1"


def test_the_oldest_goes_first(kept: Captures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "MOST", 2)
    for text in ("one", "two", "three"):
        keep(kept, text, b"x")
    assert [took(kept, text) for text in ("one", "two", "three")] == [None, b"x", b"x"]


def test_memory_is_bounded(kept: Captures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "MOST_BYTES", 10)
    keep(kept, "large", b"x" * 11)
    keep(kept, "one", b"x" * 6)
    keep(kept, "two", b"x" * 6)
    assert [took(kept, text) for text in ("large", "one", "two")] == [None, None, b"x" * 6]
