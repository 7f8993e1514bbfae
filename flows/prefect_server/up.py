"""`synth up`: a Prefect server with its pools, deployments and workers, all on this machine."""

from __future__ import annotations

import contextlib
import contextvars
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from flows.prefect_server.children import last_line
from flows.prefect_server.connection import connected
from flows.prefect_server.locks import try_lock
from flows.prefect_server.server import SILENT, Server
from flows.prefect_server.signals import sigterm_as_interrupt
from flows.prefect_server.workers import PoolWorker, gpus, start_gpu_workers
from synth_core.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEFAULT_PORT = 4200
POOLS = ("cpu", "gpu")
_CHECK_INTERVAL = 60.0  # seconds
_ADDRESS = "address"  # file of the server's folder that tells the API it serves
# A deployment that runs once at a time holds a lease. Kept in the server's memory, Prefect's default, it dies
# with the server: then a run under way is ended, and the place of one that had not yet begun stays taken.
_VISIBLE: dict[str, str] = {
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}


def default_home() -> Path:
    """Where the server of `synth up` keeps its database and logs."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "synth" / "prefect"


def up(
    *,
    port: int = DEFAULT_PORT,
    home: Path | None = None,
    gpu: bool | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Start all of it, keep it running, and stop it in order on Ctrl-C or SIGTERM.

    home: folder of the server's database and logs. gpu: whether to start workers of the pool `gpu` here, one
    for each GPU; None: if this machine has a GPU. Runs write below the current folder. Raises `UsageError`
    where the port or the folder is taken, `EnvironmentFault` where Prefect refuses the set-up or the server
    keeps dying.
    """
    home = (home or default_home()).absolute()
    workers: list[PoolWorker] = []
    with sigterm_as_interrupt(), _only_one(home), Server(home, port=port, options=_VISIBLE) as server:
        (home / _ADDRESS).write_text(server.url)
        say(f"starting a Prefect server; its history and logs lie in {home}")
        options = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(home), **SILENT}
        try:
            _set_up(options, home)
            workers.append(PoolWorker("cpu", options, home))
            with_gpu = serves_gpu(gpu)
            if with_gpu:
                workers.extend(start_gpu_workers(options, home, gpus()))
            say(f"deployments, schedules and runs: {server.address}")
            say(f"a run now:  PREFECT_API_URL={server.url} prefect deployment run synth/high-yield")
            if not with_gpu:
                say("no GPU here, so the pool gpu has no worker; docs/deploying.md says how to add a machine")
            say("to stop:    Ctrl-C; a run that is cut short goes on with the next one, or by `synth resume`")
            with connected(options):
                _supervise(server, workers, say)
        except KeyboardInterrupt:
            say("stopping")
        finally:
            _stop(workers)


def api_of(port: int | None, home: Path | None) -> str:
    """The API of a `synth up` that was given this port or, without one, this folder; empty: neither.

    Raises `UsageError` where no server was ever started in that folder.
    """
    if port is not None:
        return f"http://127.0.0.1:{port}/api"
    if home is None:
        return ""
    try:
        return (home / _ADDRESS).read_text()
    except OSError:
        raise UsageError(f"no server was ever started in {home}; `synth up --home` starts one") from None


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Two servers on one SQLite file would both schedule the same runs."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--home {home} cannot be used: {error.strerror}") from None
    with try_lock(home / "lock") as free:
        if not free:
            raise UsageError(f"a Prefect server runs in {home} already; stop it, or name another --home")
        yield


def _set_up(options: Mapping[str, str], home: Path) -> None:
    """Create the pools and the deployments. Safe to repeat."""
    with connected(options):
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            _make_pools(client)
    command = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file())]
    result = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **options, "PWD": os.getcwd()},  # prefect.yaml has runs work in $PWD
        capture_output=True,
        text=True,
    )
    log = home / "deploy.log"
    log.write_text(result.stdout + result.stderr)
    if result.returncode:
        raise EnvironmentFault(f"prefect deploy failed ({last_line(log):.200}); see {log}")


def _make_pools(client: SyncPrefectClient) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    for pool in POOLS:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))


def prefect_file() -> Path:
    """prefect.yaml of the current folder, else of the checkout, else the installed one."""
    for candidate in (Path.cwd(), Path(__file__).parents[2], Path(str(files("deployments")))):
        if (candidate / "prefect.yaml").exists():
            return candidate / "prefect.yaml"
    raise UsageError("there is no prefect.yaml here; run `synth up` in a checkout of Synth")


def _supervise(server: Server, workers: Sequence[PoolWorker], say: Callable[[str], None]) -> None:
    """See to it that all keep running; ends only by a signal, or where the server can't be kept alive."""
    told, monitor = 0, _DeadRunMonitor()
    while True:
        time.sleep(1.0)
        server.check()
        if server.deaths > told:
            told = server.deaths
            say(f"the Prefect server died and is started again; {server.log} says why")
        for worker in workers:
            worker.restart_if_dead(say)
        monitor.look_if_due()


class _DeadRunMonitor:
    """Looks for dead runs each minute, beside all else, for a server that hangs may keep it waiting.

    Not before runs could be heard again that outlived an earlier server or, with this machine, a sleep.
    """

    def __init__(self) -> None:
        self._due = self._clock = 0.0
        self._wait()
        self._looking = threading.Thread()

    def look_if_due(self) -> None:
        from flows.prefect_server.dead_runs import mark_dead_runs

        if abs(time.time() - time.monotonic() - self._clock) > _CHECK_INTERVAL:
            self._wait()
        if time.monotonic() >= self._due and not self._looking.is_alive():
            self._due = time.monotonic() + _CHECK_INTERVAL
            within = contextvars.copy_context()  # which server Prefect talks to
            self._looking = threading.Thread(target=within.run, args=(mark_dead_runs,), daemon=True)
            self._looking.start()

    def _wait(self) -> None:
        from flows.prefect_server.dead_runs import SILENCE

        self._due = time.monotonic() + SILENCE.total_seconds()
        self._clock = time.time() - time.monotonic()


def _stop(workers: Sequence[PoolWorker]) -> None:
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.wait()


def serves_gpu(asked: bool | None) -> bool:
    return bool(gpus()) if asked is None else asked
