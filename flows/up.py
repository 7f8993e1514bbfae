"""`synth up`: a Prefect server, its pools, deployments, automations and workers, all on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flows.connection import MUTED, connected, server_is_configured
from flows.server import SILENT, Server
from flows.signals import sigterm_as_interrupt
from synth_core.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEFAULT_API_URL = "http://127.0.0.1:4200/api"
POOLS = ("cpu", "gpu")
_STOP_SECONDS = 20.0
_VISIBLE: dict[str, str] = {"PREFECT_SERVER_LOGGING_LEVEL": "WARNING"}


class Finding(NamedTuple):
    """One fact about the set-up; `detail` says what to do where it is not ok."""

    name: str
    ok: bool
    detail: str


def default_home() -> Path:
    """Where the server of `synth up` keeps its database and logs."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "synth" / "prefect"


def up(
    *,
    port: int = 4200,
    home: Path | None = None,
    gpu: bool | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Start all of it, keep it running, and stop it in order on Ctrl-C or SIGTERM.

    home: folder of the server's database and logs. gpu: whether to start a worker of the pool `gpu` here;
    None: if this machine has a GPU. Runs write below the current folder. Raises `UsageError` where the port
    is taken, `EnvironmentFault` where Prefect refuses the set-up.
    """
    home = home or default_home()
    workers: dict[str, subprocess.Popen[bytes]] = {}
    with sigterm_as_interrupt(), Server(home, port=port, options=_VISIBLE) as server:
        say(f"starting a Prefect server; its history and logs lie in {home}")
        options = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(home), **SILENT}
        try:
            _set_up(options, home)
            pools = POOLS if (_has_gpu() if gpu is None else gpu) else POOLS[:1]
            for pool in pools:
                workers[pool] = _start_worker(pool, options, home)
            say(f"deployments, schedules and runs: {server.address}")
            say(f"a run now:  PREFECT_API_URL={server.url} prefect deployment run synth/high-yield")
            if "gpu" not in pools:
                say("no GPU here, so the pool gpu has no worker; docs/deploying.md says how to add a machine")
            say("to stop:    Ctrl-C; a run that is cut short goes on with the next one, or by `synth resume`")
            _tend(workers, options, home)
        except KeyboardInterrupt:
            say("stopping")
        finally:
            _stop(workers)


def up_check(api_url: str = "") -> Iterator[Finding]:
    """What is amiss with a set-up, this machine's or a team's.

    api_url: the server's API; empty: the one that Prefect is set to, else the default of `synth up`.
    """
    url = {"PREFECT_API_URL": api_url} if api_url else {}
    default = {} if server_is_configured() else {"PREFECT_API_URL": DEFAULT_API_URL}
    with connected({**SILENT, **MUTED, **default, **url}):
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL

        with get_client(sync_client=True) as client:
            where, error = PREFECT_API_URL.value(), client.api_healthcheck()
            if error:
                yield Finding("server", False, f"{where} does not answer; start one with `synth up`")
                return
            yield Finding("server", True, f"{where}, prefect {client.api_version()}")
            yield from _check_pools(client)
            yield from _check_deployments(client)
            yield from _check_automations(client)


def _set_up(options: Mapping[str, str], home: Path) -> None:
    """Pools, automations and deployments; safe to repeat."""
    with connected(options):
        from prefect.client.orchestration import get_client

        from flows import automations

        with get_client(sync_client=True) as client:
            _make_pools(client)
        automations.create()
    command = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(_prefect_file())]
    result = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **options, "PWD": os.getcwd()},  # prefect.yaml has runs work in $PWD
        capture_output=True,
        text=True,
    )
    log = home / "deploy.log"
    log.write_text(result.stdout + result.stderr)
    if result.returncode:
        raise EnvironmentFault(f"prefect deploy failed; {log} says why")


def _make_pools(client: SyncPrefectClient) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    for pool in POOLS:
        limit = 1 if pool == "gpu" else None  # a GPU serves one flow run at a time
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(
                WorkPoolCreate(name=pool, type="process", base_job_template=template, concurrency_limit=limit)
            )


def _prefect_file() -> Path:
    """prefect.yaml of the current folder, else of the checkout, else the one that was installed."""
    for candidate in (Path.cwd(), Path(__file__).parents[1], Path(str(files("deployments")))):
        if (candidate / "prefect.yaml").exists():
            return candidate / "prefect.yaml"
    raise UsageError("there is no prefect.yaml here; run `synth up` in a checkout of Synth")


def _start_worker(pool: str, options: Mapping[str, str], home: Path) -> subprocess.Popen[bytes]:
    with (home / f"worker-{pool}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"],
            env={**os.environ, **options, "PREFECT_WORKER_QUERY_SECONDS": "5"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _tend(workers: dict[str, subprocess.Popen[bytes]], options: Mapping[str, str], home: Path) -> None:
    """Start a worker again when it dies; ends only by a signal."""
    while True:
        time.sleep(1.0)
        for pool, worker in workers.items():
            if worker.poll() is not None:
                workers[pool] = _start_worker(pool, options, home)


def _stop(workers: dict[str, subprocess.Popen[bytes]]) -> None:
    """SIGTERM, so that a worker ends its flow runs in order; SIGKILL to its group if it does not."""
    for worker in workers.values():
        worker.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for worker in workers.values():
        try:
            worker.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def _check_pools(client: SyncPrefectClient) -> Iterator[Finding]:
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.exceptions import ObjectNotFound

    for pool in POOLS:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            yield Finding(f"pool {pool}", False, f"missing: prefect work-pool create {pool} --type process")
            continue
        workers = client.read_workers_for_work_pool(pool)
        online = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
        start = f"no worker is online: prefect worker start --pool {pool}"
        yield Finding(f"pool {pool}", online > 0, f"{online} workers online" if online else start)


def _check_deployments(client: SyncPrefectClient) -> Iterator[Finding]:
    import yaml  # type: ignore[import-untyped]
    from prefect.exceptions import ObjectNotFound

    for row in yaml.safe_load(_prefect_file().read_text())["deployments"]:
        flow = row["entrypoint"].rpartition(":")[2]
        name = f"{flow}/{row['name']}"
        try:
            found = client.read_deployment_by_name(name)
        except ObjectNotFound:
            yield Finding(name, False, "not deployed: prefect deploy --all")
            continue
        paused = "paused; resume it in the UI" if found.paused else ""
        schedules = ", ".join(str(getattr(each.schedule, "cron", each.schedule)) for each in found.schedules)
        yield Finding(name, not paused, paused or (f"cron {schedules}" if schedules else "started by hand"))


def _check_automations(client: SyncPrefectClient) -> Iterator[Finding]:
    from flows.automations import automations

    for automation in automations():
        there = bool(client.read_automations_by_name(automation.name))
        yield Finding(automation.name, there, "in place" if there else "missing: `synth up` makes it")
