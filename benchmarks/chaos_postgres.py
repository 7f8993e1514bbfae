"""A private PostgreSQL server that benchmarks/chaos.py can kill. Needs Debian's package."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self


class Postgres:
    """A cluster on the loopback, for the duration of the `with` block."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="synth-chaos-postgres-"))
        self._as = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # not as root
        if self._as:
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._run("initdb", "-D", "data", "-U", "synth", "-A", "trust")
        self._start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "synth", "prefect")
        self.url = f"postgresql+asyncpg://synth@127.0.0.1:{self._port}/prefect"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "stop", "-D", "data", "-m", "immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def strike(self, seconds: float) -> None:
        """Kill it with all its sessions, and start it again a little later."""
        postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)  # its children notice this and end
        time.sleep(seconds)
        self._start()

    def _start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        for _ in range(20):  # it cannot start before all processes of the killed one have ended
            with contextlib.suppress(subprocess.CalledProcessError):
                self._run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)
                return
            time.sleep(0.5)
        raise RuntimeError((self.folder / "log").read_text()[-1000:])

    def _run(self, program: str, *arguments: str) -> None:
        known = [*Path("/usr/lib/postgresql").glob(f"*/bin/{program}")]
        found = shutil.which(program) or str(max(known))
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        command = [*self._as, found, *arguments]
        nothing = subprocess.DEVNULL  # not a pipe: pg_ctl's child would keep it open
        subprocess.run(command, cwd=self.folder, check=True, env=environment, stdout=nothing, stderr=nothing)
