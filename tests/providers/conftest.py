"""Shared by the provider tests: settings that call a loopback server, and candidates to ask about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synth_core.prompting import render_prompts
from synth_core.records import Candidate, Specification
from synth_core.settings import Settings

KEYS = {"openai": "sk-proj-Qw7xZ2mN9pLrT4vB", "gemini": "AIzaSyD3kP9mXq7LwT2vR8"}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
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
            provider=provider,
            cache_dir=str(tmp_path / "cache"),
            output_dir=str(tmp_path / "out"),
            num_worker=1,
            **groups,
        )

    return make


def candidates(provider: str, count: int, *, first: int = 0, prompt: str = "ordered") -> list[Candidate]:
    """Candidates with their prompts, each asking something else."""
    made = [
        Candidate(
            index=index,
            specification=Specification(
                operators=("Conv2d", "ReLU", *("Tanh" for _ in range(index % 5))),
                strategy="test",
                seed=index,
                provider=provider,
                prompt=prompt,
                temperature=0.5,
                sample=index,
            ),
        )
        for index in range(first, first + count)
    ]
    return render_prompts(made)
