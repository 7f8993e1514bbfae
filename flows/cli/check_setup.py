"""`synth up --check`: which servers, pools or deployments are missing or not ready."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flows.cli.findings import Finding
from flows.prefect_server.connection import MUTED, connected, server_is_configured
from flows.prefect_server.server import SILENT
from flows.prefect_server.up import DEFAULT_PORT, POOLS, api_of, prefect_file, serves_gpu

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def up_check(api_url: str = "", *, gpu: bool | None = None) -> Iterator[Finding]:
    """Check a Prefect set-up, on this machine or a team's.

    Args:
        api_url: The server's API. Empty: the one that Prefect is set to, else the default of `synth up`.
        gpu: Whether the pool `gpu` needs a worker. None: only if this machine has a GPU.
    """
    if not api_url and not server_is_configured():
        api_url = api_of(DEFAULT_PORT, None)
    url = {"PREFECT_API_URL": api_url} if api_url else {}
    with connected({**SILENT, **MUTED, **url}):
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL

        with get_client(sync_client=True) as client:
            where, error = PREFECT_API_URL.value(), client.api_healthcheck()
            if error:
                yield Finding("server", False, f"{where} does not answer; start a server with `synth up`")
                return
            yield Finding("server", True, f"{where}, prefect {client.api_version()}")
            yield from _check_pools(client, serves_gpu(gpu))
            yield from _check_deployments(client)


def _check_pools(client: SyncPrefectClient, gpu_expected: bool) -> Iterator[Finding]:
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
        if online:
            yield Finding(f"pool {pool}", True, f"{online} workers online")
        elif pool == "gpu" and not gpu_expected:
            yield Finding(f"pool {pool}", True, "no worker is online; a machine without a GPU needs none")
        else:
            start = f"prefect worker start --pool {pool}" + (" --limit 1" if pool == "gpu" else "")
            yield Finding(f"pool {pool}", False, f"no worker is online: {start}")


def _check_deployments(client: SyncPrefectClient) -> Iterator[Finding]:
    import yaml  # type: ignore[import-untyped]
    from prefect.exceptions import ObjectNotFound

    for row in yaml.safe_load(prefect_file().read_text())["deployments"]:
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
