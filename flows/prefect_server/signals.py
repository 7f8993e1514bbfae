"""SIGTERM, which service managers send, means the same as Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

_PATIENCE = 10.0  # seconds; an orderly end takes less


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on SIGTERM and SIGINT. Does nothing outside the main thread.

    Only the first signal raises. A second one would interrupt the clean-up, and threads that are left running
    would keep the process alive forever. A signal that comes after `_PATIENCE` ends the process at once. If a
    library turns the interrupt into an exception of its own, this turns it back.
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
