"""Fixtures of the provider tests: keys, a warm cache, and settings that call a loopback server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import KEYS

from synth_core.settings import ProviderSettings, Settings


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Both providers' keys in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["openai"])
    monkeypatch.setenv("GEMINI_API_KEY", KEYS["gemini"])
    return KEYS


# Whole runs, and where below `tmp_path` they have their cache.
_CACHES = {"test_keys_in_a_run.py": "cache/synth", "test_local_llm.py": "cache"}


@pytest.fixture(autouse=True)
def warm(request: pytest.FixtureRequest) -> None:
    """Whole runs find a warm cache."""
    if cache := _CACHES.get(request.path.name):
        request.getfixturevalue("warm_up")(request.getfixturevalue("tmp_path") / cache)


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings for one provider at one address; `groups` are `Settings`' groups, overlaid."""

    def make(wire: str, base_url: str, **groups: Any) -> Settings:
        provider = {"base_url": base_url, "timeout": 20.0, "retries": 0, **groups.pop("provider", {})}
        return Settings(
            model_name=wire,
            provider=ProviderSettings.model_validate(provider),
            cache_dir=str(tmp_path / "cache"),
            output_dir=str(tmp_path / "out"),
            num_worker=1,
            **groups,
        )

    return make
