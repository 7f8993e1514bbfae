"""`python -m flows.tied MODULE ARGUMENTS`: that module as a command that ends when its standard input does.

So it can't outlive the parent that holds the other end, however that dies.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

PATIENCE = 20.0  # seconds from the end of standard input, and SIGTERM with it, to SIGKILL


def _watch() -> None:
    os.read(0, 1)  # nothing is ever written: this returns at the end of the input
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # A script's background jobs ignore SIGINT, and so would this, which Prefect's workers end by.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
