"""Parsing in several threads."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

from synth_core.program.syntax import parse

SOURCE = "\n".join(f"x{i} = [({i}, {{'a': {i}}}), f({i})]" for i in range(60))


def race(parse: Callable[[str], object], rounds: int) -> list[str]:
    """What two threads at different depths end in, if the collector lets others run while it collects."""
    errors: list[str] = []

    def go(depth: int) -> None:
        if depth:
            return go(depth - 1)
        for _ in range(rounds):
            try:
                parse(SOURCE)
            except SystemError as error:
                errors.append(str(error))
        return None

    def collecting(*_: Any) -> None:
        time.sleep(0)

    threshold = gc.get_threshold()
    gc.set_threshold(30)
    gc.callbacks.append(collecting)
    try:
        threads = [threading.Thread(target=go, args=(depth,)) for depth in (0, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.callbacks.remove(collecting)
        gc.set_threshold(*threshold)
    return errors


def test_threads_may_parse_at_once() -> None:
    assert race(parse, 60) == []
