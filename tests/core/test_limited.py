"""A child that reads texts: its limits, its death, and what becomes of the caller."""

from __future__ import annotations

import os
import threading

import pytest

from synth_core import limited as module
from synth_core.limited import Unreadable, limited

RENAME = "synth_core.program.renaming:rename_class"


def test_it_gives_what_the_function_gives() -> None:
    assert limited(RENAME, "class A: pass\n", "B") == "class B: pass\n"


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "not " * 7_000 + "1",
        "x = " + "+".join(["1"] * 300_000),
        "x = " + "-" * 500_000 + "1",
        "\ud800",
    ],
)
def test_what_breaks_a_parser_is_one_printable_line(text: str) -> None:
    with pytest.raises(Unreadable) as caught:
        limited(RENAME, text, "B")
    assert str(caught.value).isprintable()
    assert limited(RENAME, "class A: pass\n", "B") == "class B: pass\n"


def test_over_its_limits_it_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POOL", module._Pool())
    with pytest.raises(Unreadable, match="MiB"):
        limited(RENAME, "class A: pass\n" * 8_000_000, "B")
    assert limited(RENAME, "class A: pass\n", "B") == "class B: pass\n"
    module._POOL.close()


def test_a_child_that_dies_meanwhile_is_that_texts_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POOL", module._Pool())
    limited(RENAME, "class A: pass\n", "B")
    (reader,) = module._POOL._idle
    os.kill(reader._child.pid, 9)
    with pytest.raises(Unreadable):
        limited(RENAME, "class A: pass\n", "B")
    assert limited(RENAME, "class A: pass\n", "B") == "class B: pass\n"
    module._POOL.close()


def test_nothing_outside_this_package_is_called() -> None:
    with pytest.raises(Unreadable, match="os:getcwd"):
        limited("os:getcwd")


def test_threads_get_their_own_answers() -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = limited(RENAME, "class A: pass\n", f"B{number}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"class B{number}: pass\n" for number in range(6)}
