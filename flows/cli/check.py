"""`synth check`: can this machine run Synth, and if not, what is missing."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from flows.cli.findings import Finding
from flows.prefect_server.connection import MUTED, connected, server_fault, server_is_configured
from flows.prefect_server.secret_block import fetch_key
from flows.prefect_server.server import SILENT
from synth_core.errors import SynthError
from synth_core.providers.preflight import configured, probe
from synth_core.records import Tier
from synth_core.settings import Settings
from synth_core.store.runs import hidden_folder, room
from synth_core.strategies import load_strategy, with_provider
from synth_core.validation.engine import Engine

_LEAST_FREE_MIB = 2048
_TIERS = {
    Tier.A: "tier A: namespaces, Landlock and seccomp",
    Tier.B: "tier B: Landlock and seccomp, no namespaces",
    Tier.C: "tier C: resource limits only, refused without --allow-unsandboxed",
}


def check(settings: Settings) -> Iterator[Finding]:
    """Check everything that a run needs. Each finding is yielded as soon as it is known."""
    settings = with_provider(settings, load_strategy(settings.strategy)).resolved()
    probes: list[Callable[[Settings], Iterator[Finding]]] = [
        _python,
        _compiler,
        _sandbox,
        _prefect,
        _providers,
        _folders,
    ]
    for look in probes:
        yield from look(settings)


def _python(_: Settings) -> Iterator[Finding]:
    yield Finding("python", sys.version_info >= (3, 11), f"Python {platform.python_version()}")


def _compiler(_: Settings) -> Iterator[Finding]:
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    yield Finding(
        "compiler", path is not None, path or f"{name} not found: install g++, which torch.compile needs"
    )


def _sandbox(settings: Settings) -> Iterator[Finding]:
    try:
        with Engine(settings.validation, 1, cache_dir=settings.cache_dir) as engine:
            facts = engine.probe()
    except SynthError as error:
        yield Finding("sandbox", False, str(error))
        return
    tier = Tier(facts["tier"])
    refusals = "; ".join(facts.get("refusals", ()))
    yield Finding("torch", True, f"torch {facts.get('torch', '?')}, in child processes only")
    yield Finding("sandbox", tier is not Tier.C, _TIERS[tier] + (f" ({refusals})" if refusals else ""))


def _prefect(_: Settings) -> Iterator[Finding]:
    ours = f"prefect {version('prefect')}"
    if not server_is_configured():
        yield Finding("prefect", True, f"{ours}; each run starts a private server")
        return
    with connected({**SILENT, **MUTED}):
        fault = server_fault()
    yield Finding("prefect", not fault, fault or f"{ours}; your server answers")


def _providers(settings: Settings) -> Iterator[Finding]:
    """Make one tiny call to the provider that the settings name, and to every other one that has a key."""
    for provider in configured(settings):
        named = provider.name == settings.model_name
        try:
            key = fetch_key(settings) if named else None
        except SynthError as error:
            yield Finding(provider.name, False, str(error))
            continue
        found = probe(settings, provider, key=key)
        yield Finding(found.provider, found.ok, found.detail)


def _folders(settings: Settings) -> Iterator[Finding]:
    for name, folder in (("output_dir", settings.output_dir), ("cache_dir", settings.cache_dir)):
        yield _folder(name, Path(folder))


def _folder(name: str, folder: Path) -> Finding:
    """Whether the folder, or its nearest existing parent, can be written to and has enough space."""
    existing, free = room(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding(name, False, f"{existing} cannot be written to")
    held = sum(_sizes(folder if name == "cache_dir" else hidden_folder(folder))) / 2**20
    detail = f"{folder}: {free / 1024:.0f} GiB free" + (f", {held:.0f} MiB used" if held else "")
    return Finding(name, free >= _LEAST_FREE_MIB, detail)


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may prune at the same time
            yield path.stat().st_size
