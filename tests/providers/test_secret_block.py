"""A key that only a Prefect Secret block holds: the commands that make no run use it like a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import candidates
from loopback import Act, Loopback, answer

from flows.cli import check
from flows.cli.preflight import check_settings
from flows.cli.without_prefect import steps
from flows.prefect_server.connection import MUTED, connected
from flows.prefect_server.secret_block import fetch_key
from flows.prefect_server.server import Server
from synth_core.errors import EnvironmentFault, UsageError
from synth_core.settings import Settings

Make = Callable[..., Settings]
_HEADERS = {
    "openai": ("authorization", "Bearer the-blocks-key"),
    "gemini": ("x-goog-api-key", "the-blocks-key"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The user's server, with a block that holds a key and two that hold none."""
    with Server(tmp_path_factory.mktemp("prefect")) as running:
        variables = {"PREFECT_API_URL": running.url, "PREFECT_HOME": str(running.home), **MUTED}
        with connected(variables):
            from prefect.blocks.system import Secret

            values: dict[str, Any] = {"held": " the-blocks-key\n", "empty": "", "a-number": 7}
            for name, value in values.items():
                Secret(value=value).save(name)
        yield running


@pytest.fixture(autouse=True)
def without_keys(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the server, and no key."""
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    monkeypatch.setenv("PREFECT_HOME", str(server.home))


@pytest.mark.parametrize("wire", _HEADERS)
def test_check_preview_and_debug_use_the_key_of_the_block(
    wire: str, make_settings: Make, tmp_path: Path, warm_up: Callable[[Path], Path]
) -> None:
    warm_up(tmp_path / "cache")
    with Loopback(lambda seen: Act(body=answer(seen.wire, "hello"))) as provider:
        settings = make_settings(wire, provider.base_url(wire), provider={"secret_block": "held"})
        check_settings(settings)
        (found,) = check._providers(settings)
        with steps(settings) as stages:
            (done,) = stages[1](candidates(wire, 1))
    assert found.ok, found.detail
    assert done.alive
    name, value = _HEADERS[wire]
    assert [seen.headers[name] for seen in provider.seen] == [value, value]


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("nowhere", "Secret block 'nowhere': Unable to find"),
        ("empty", "'empty' holds no key"),
        ("a-number", "'a-number' holds no key"),
    ],
)
def test_a_block_without_a_key_is_the_users_mistake(block: str, says: str, make_settings: Make) -> None:
    settings = make_settings("openai", "http://127.0.0.1:9/v1", provider={"secret_block": block})
    with pytest.raises(UsageError, match=says) as caught:
        check_settings(settings)
    assert "\n" not in str(caught.value)
    (found,) = check._providers(settings)
    assert (found.ok, found.name) == (False, "openai")
    assert str(caught.value) == found.detail


def test_a_block_needs_a_server(make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="PREFECT_API_URL"):
        fetch_key(make_settings("openai", "", provider={"secret_block": "held"}))


def test_a_server_that_does_not_answer_is_no_mistake(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(EnvironmentFault, match="Secret block 'held'"):
        fetch_key(make_settings("openai", "", provider={"secret_block": "held"}))
