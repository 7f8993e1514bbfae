"""A Prefect server as a child of this process: a private one for a single run, or the one of `synth up`.

The parent holds the listening socket and the child serves it. So no other process can take the port. A client
that calls while the server starts, or restarts after a crash, waits in the backlog instead of being refused.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from flows.prefect_server.children import RestartBackoff, end_child, last_line, start_child
from flows.prefect_server.locks import try_lock
from synth_core.errors import EnvironmentFault, SynthError, UsageError

# With Prefect's defaults, a burst of task runs overflows these services. They then drop history and only
# warn.
LOSSLESS: dict[str, str] = {
    f"PREFECT_SERVER_SERVICES_{service}_{size}": "200"
    for service in ("TASK_RUN_RECORDER", "EVENT_PERSISTER")
    for size in ("READ_BATCH_SIZE", "BATCH_SIZE")
}
SILENT: dict[str, str] = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
# A single run serves no deployments and nobody looks at its UI.
PRIVATE: dict[str, str] = {
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    **{
        f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false"
        for service in (
            "SCHEDULER",
            "LATE_RUNS",
            "FOREMAN",
            "CANCELLATION_CLEANUP",
            "PAUSE_EXPIRATIONS",
            "TRIGGERS",
        )
    },
}
_STOP_SECONDS = 15.0
_MAX_RESTARTS = 20  # in a row, of a server that dies young each time
# In a row, of a server that dies young with Python's own exit code 1. It failed before it began to serve, so
# the installation is broken and no restart helps. A server that loses its database ends with uvicorn's code.
_MAX_BROKEN_STARTS = 3
_LONGEST_PAUSE = 5.0  # seconds before a restart; clients wait meanwhile, but not forever


class Server:
    """A Prefect server that lives as long as the `with` block.

    home: folder of its SQLite file. port: 0 means a free one. options: its Prefect settings as environment
    variables. deaths: how often it has died. If it keeps dying, the block raises `EnvironmentFault` instead
    of the error that a client met.
    """

    def __init__(self, home: Path, *, port: int = 0, options: Mapping[str, str] = PRIVATE) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self._options = options
        try:
            self._socket = socket.create_server(("127.0.0.1", port), backlog=512)
        except OSError as error:
            raise UsageError(f"port {port} is taken ({error.strerror}); choose another") from None
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"{self.address}/api"
        self.log = home / "server.log"
        self.deaths = 0
        self._closing = threading.Event()
        self._changing = threading.Lock()  # held while a child is started, and to stop starting any
        self._given_up = threading.Event()
        self._child = self._start()
        self._guard = threading.Thread(target=self._keep_alive, name="prefect-server-guard", daemon=True)

    def __enter__(self) -> Self:
        self._guard.start()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        with self._changing:
            self._closing.set()
        self._socket.close()
        end_child(self._child, _STOP_SECONDS)
        self._guard.join(_STOP_SECONDS)
        if isinstance(error, Exception) and not isinstance(error, SynthError):
            self.check()

    def check(self) -> None:
        """Raise `EnvironmentFault` if the server kept dying and is not restarted any more."""
        if self._given_up.is_set():
            said = f" ({said:.200})" if (said := last_line(self.log)) else ""
            raise EnvironmentFault(f"the Prefect server died {self.deaths} times{said}; see {self.log}")

    @property
    def pid(self) -> int:
        return self._child.pid

    def _start(self) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
        where = {"PREFECT_HOME": str(self.home), "PREFECT_SERVER_UI_API_URL": self.url}
        variables = {**kept, **where, **LOSSLESS, **SILENT, **self._options}
        handle = self._socket.fileno()
        arguments = ["-m", "flows.prefect_server.server", str(handle), str(self.home)]
        return start_child(arguments, variables, self.log, pass_fds=[handle])

    def _keep_alive(self) -> None:
        """Restart the server when it dies. The run goes on; its clients wait in the backlog."""
        backoff, broken = RestartBackoff(_LONGEST_PAUSE), 0
        while True:
            code = self._child.wait()
            if self._closing.is_set():
                return
            self.deaths += 1
            pause = backoff.died()
            broken = broken + 1 if code == 1 and backoff.in_a_row else 0
            if backoff.in_a_row > _MAX_RESTARTS or broken >= _MAX_BROKEN_STARTS:
                self._given_up.set()
                self._socket.close()  # clients are refused at once instead of waiting in vain
                return
            self._closing.wait(pause)
            with self._changing:
                if self._closing.is_set():
                    return
                self._child = self._start()
            backoff.started()


@contextlib.contextmanager
def private_server(output_dir: Path) -> Iterator[Server]:
    """A server that keeps its history in the folder. A second run at the same time gets a temporary one."""
    home = output_dir / ".synth" / "prefect"
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(try_lock(home / "lock")):
            temporary = tempfile.TemporaryDirectory(prefix="synth-prefect-", ignore_cleanup_errors=True)
            home = Path(stack.enter_context(temporary))
        yield stack.enter_context(Server(home))


def _is_foreign(name: str) -> bool:
    """Our server must not see another server's settings or a provider's key."""
    return name.startswith(("PREFECT_", "SYNTH_")) or name.endswith("_API_KEY")


def _serve(handle: int, home: Path) -> None:
    """Run in the child: serve on the socket `handle` until standard input ends."""
    import uvicorn
    from prefect.server.api.server import create_app

    ready = home / "ready"
    if not ready.exists():  # an earlier server was killed while it created its tables: start over
        for leftover in home.glob("prefect.db*"):
            leftover.unlink()
    # Only an earlier server of this folder can have left this lock. After a power cut, another process may
    # have that server's process id.
    (home / "concurrency_leases" / "expirations.lock").unlink(missing_ok=True)
    config = uvicorn.Config(
        create_app, factory=True, log_level="error", lifespan="on", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)

    def end_with_parent() -> None:
        while not server.started:
            if select.select([sys.stdin], [], [], 0.1)[0]:
                os._exit(0)
        ready.touch()
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=handle)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
