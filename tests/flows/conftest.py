"""One private Prefect server for all tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated import Runner

from flows.prefect_server.server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture
def runner(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Runs the flow into a folder of its own, on the shared server."""
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    monkeypatch.setenv("PREFECT_HOME", str(server.home))
    return Runner(tmp_path / "out")
