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
_CHECK_INTERVAL = 60.0  # seconds between two looks for dead runs
_ADDRESS = "address"  # a file in the server's folder that holds the URL of its API
# A deployment that runs once at a time holds a lease. By default Prefect keeps leases in the server's
# memory and loses them when the server dies. Then the current run is ended, and a run that had not begun
# blocks the rest.
_VISIBLE: dict[str, str] = {
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}


def default_home() -> Path:
    """Return the folder in which the server of `synth up` keeps its database and logs."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "synth" / "prefect"


def up(
    *,
    port: int = DEFAULT_PORT,
    home: Path | None = None,
    gpu: bool | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Start everything, keep it running, and stop it in order on Ctrl-C or SIGTERM.

    Runs write below the current folder.

    home: folder of the server's database and logs. gpu: whether to start workers of the pool `gpu` here,
    one for each GPU; None means yes if this machine has a GPU. Raises `UsageError` if the port or the
    folder is in use, `EnvironmentFault` if Prefect refuses the set-up or the server keeps dying.
    """
    home = (home or default_home()).absolute()
    workers: list[PoolWorker] = []
    with sigterm_as_interrupt(), _only_one(home), Server(home, port=port, options=_VISIBLE) as server:
        (home / _ADDRESS).write_text(server.url)
        say(f"starting a Prefect server; history and logs: {home}")
        options = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(home), **SILENT}
        try:
            _set_up(options, home)
            workers.append(PoolWorker("cpu", options, home))
            with_gpu = serves_gpu(gpu)
            if with_gpu:
                workers.extend(start_gpu_workers(options, home, gpus()))
            say(f"deployments, schedules and runs: {server.address}")
            say(f"start a run: PREFECT_API_URL={server.url} prefect deployment run synth/high-yield")
            if not with_gpu:
                say(
                    "this machine has no GPU, so the pool gpu has no worker; see docs/deploying.md to add one"
                )
            say("to stop:     Ctrl-C; the next run or `synth resume` finishes an interrupted run")
            with connected(options):
                _supervise(server, workers, say)
        except KeyboardInterrupt:
            say("stopping")
        finally:
            _stop(workers)


def api_of(port: int | None, home: Path | None) -> str:
    """Return the URL of the API of `synth up`, by its port, else by its folder; empty if neither is given.

    Raises `UsageError` if no server was ever started in that folder.
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
    """Hold the folder's lock: two servers on one SQLite file would schedule every run twice."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--home {home} cannot be used: {error.strerror}") from None
    with try_lock(home / "lock") as free:
        if not free:
            raise UsageError(f"a Prefect server already runs in {home}; stop it or choose another --home")
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
        env={**os.environ, **options, "PWD": os.getcwd()},  # prefect.yaml makes runs work in $PWD
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
    """Return the prefect.yaml of the current folder, else of the checkout, else of the installed package."""
    for candidate in (Path.cwd(), Path(__file__).parents[2], Path(str(files("deployments")))):
        if (candidate / "prefect.yaml").exists():
            return candidate / "prefect.yaml"
    raise UsageError("there is no prefect.yaml here; run `synth up` in a checkout of Synth")


def _supervise(server: Server, workers: Sequence[PoolWorker], say: Callable[[str], None]) -> None:
    """Restart what dies. Ends by a signal, or by an error if the server keeps dying."""
    told, monitor = 0, _DeadRunMonitor()
    while True:
        time.sleep(1.0)
        server.check()
        if server.deaths > told:
            told = server.deaths
            say(f"the Prefect server died and is being restarted; {server.log} says why")
        for worker in workers:
            worker.restart_if_dead(say)
        monitor.look_if_due()


class _DeadRunMonitor:
    """Looks for dead runs every minute, in a thread of its own because the server may hang.

    It first waits until every live run must have sent a heartbeat. It does so again after this machine slept.
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
            within = contextvars.copy_context()  # it says which server Prefect talks to
            self._looking = threading.Thread(target=within.run, args=(mark_dead_runs,), daemon=True)
            self._looking.start()

    def _wait(self) -> None:
        from flows.prefect_server.dead_runs import SILENCE

        self._due = time.monotonic() + SILENCE.total_seconds()
        self._clock = time.time() - time.monotonic()


def _stop(workers: Sequence[PoolWorker]) -> None:
    for worker in workers:
        worker.ask_to_end()
    for worker in workers:
        worker.end()


def serves_gpu(asked: bool | None) -> bool:
    return bool(gpus()) if asked is None else asked
