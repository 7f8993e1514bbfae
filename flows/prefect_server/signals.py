"""What a service manager sends means the same as Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

_PATIENCE = 10.0  # seconds; what ends in order has ended by then


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGINT raise `KeyboardInterrupt` in the main thread; elsewhere nothing changes.

    Once: a second one would cut short the cleaning up that the first began, and what that leaves running
    keeps the process for ever. One that comes after `_PATIENCE` ends the process on the spot.
    What a library makes of an interrupt that hits it in the middle is `KeyboardInterrupt` again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    interrupted = 0.0

    def interrupt(number: int, _: object) -> None:
        nonlocal interrupted
        now = time.monotonic()
        if not interrupted:
            interrupted = now
            raise KeyboardInterrupt
        if now - interrupted > _PATIENCE:
            os._exit(128 + number)

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
