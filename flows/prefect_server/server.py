"""A Prefect server as a child of this process: a private one for a single run, or the one of `synth up`.

The parent holds the listening socket and the child serves it: the port can't be lost to another process in
between, and a client that calls while the server still starts, or starts again after a crash, waits in the
backlog instead of being refused. The child ends when its standard input does, so it can't outlive its parent,
however that dies.
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

from flows.prefect_server.children import RestartBackoff, last_line, open_log
from flows.prefect_server.locks import try_lock
from synth_core.errors import EnvironmentFault, SynthError, UsageError

# With the defaults a burst of task runs outruns these services, and history is dropped with a mere warning.
LOSSLESS: dict[str, str] = {
    f"PREFECT_SERVER_SERVICES_{service}_{size}": "200"
    for service in ("TASK_RUN_RECORDER", "EVENT_PERSISTER")
    for size in ("READ_BATCH_SIZE", "BATCH_SIZE")
}
SILENT: dict[str, str] = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
# A single run has no deployments to serve and nobody to look at it.
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
_MOST_RESTARTS = 20  # in a row, of a server that dies young each time
# In a row and young, of one that ends with Python's own exit code: what fails before it starts to serve is a
# broken installation, which no restart mends. Where its database fails it, the code is uvicorn's.
_MOST_BROKEN_STARTS = 3
_LONGEST_PAUSE = 5.0  # seconds between two lives; clients wait, but not for ever


class Server:
    """Starts with the `with` block and ends with it.

    home: folder of its SQLite file. port: 0 for a free one. options: its Prefect settings, as variables.
    deaths: how often it died so far. Where it keeps dying, the block ends with `EnvironmentFault` instead of
    what that made of its clients.
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
        self._changing = threading.Lock()  # held to start a child, and to end starting any
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
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._guard.join(_STOP_SECONDS)
        if isinstance(error, Exception) and not isinstance(error, SynthError):
            self.check()

    def check(self) -> None:
        """Raises `EnvironmentFault` where the server kept dying and is started no more."""
        if self._given_up.is_set():
            said = f" ({said:.200})" if (said := last_line(self.log)) else ""
            raise EnvironmentFault(f"the Prefect server died {self.deaths} times{said}; see {self.log}")

    @property
    def pid(self) -> int:
        return self._child.pid

    def _start(self) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
        where = {"PREFECT_HOME": str(self.home), "PREFECT_SERVER_UI_API_URL": self.url}
        own = {**where, **LOSSLESS, **SILENT, **self._options}
        with open_log(self.log) as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "flows.prefect_server.server",
                    str(self._socket.fileno()),
                    str(self.home),
                ],
                env={**kept, **own},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[self._socket.fileno()],
                start_new_session=True,  # Ctrl-C is for the run; it ends the server in order
            )

    def _keep_alive(self) -> None:
        """A server that dies is started again: the run goes on, its clients wait in the backlog."""
        restarts, broken = RestartBackoff(_LONGEST_PAUSE), 0
        while True:
            code = self._child.wait()
            if self._closing.is_set():
                return
            self.deaths += 1
            pause = restarts.died()
            broken = broken + 1 if code == 1 and restarts.in_a_row else 0
            if restarts.in_a_row > _MOST_RESTARTS or broken >= _MOST_BROKEN_STARTS:
                self._given_up.set()
                self._socket.close()  # clients are refused at once, rather than left to wait
                return
            self._closing.wait(pause)
            with self._changing:
                if self._closing.is_set():
                    return
                self._child = self._start()
            restarts.started()


@contextlib.contextmanager
def private_server(output_dir: Path) -> Iterator[Server]:
    """A server whose history stays with the folder; a second run at the same time gets a temporary one."""
    home = output_dir / ".synth" / "prefect"
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(try_lock(home / "lock")):
            temporary = tempfile.TemporaryDirectory(prefix="synth-prefect-", ignore_cleanup_errors=True)
            home = Path(stack.enter_context(temporary))
        yield stack.enter_context(Server(home))


def _is_foreign(name: str) -> bool:
    """Another server's settings and any provider's key have no business in ours."""
    return name.startswith(("PREFECT_", "SYNTH_")) or name.endswith("_API_KEY")


def _serve(handle: int, home: Path) -> None:
    """The child: serve on the socket `handle` until standard input ends."""
    import uvicorn
    from prefect.server.api.server import create_app

    ready = home / "ready"
    if not ready.exists():  # killed while it made its tables: a half-made database never starts again
        for leftover in home.glob("prefect.db*"):
            leftover.unlink()
    # Of no other server than an earlier life of this one; after a power cut its process id may be another's.
    (home / "concurrency_leases" / "expirations.lock").unlink(missing_ok=True)
    config = uvicorn.Config(
        create_app, factory=True, log_level="error", lifespan="on", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)

    def watch() -> None:
        while not server.started:
            if select.select([sys.stdin], [], [], 0.1)[0]:
                os._exit(0)
        ready.touch()
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=handle)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
