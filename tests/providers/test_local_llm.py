"""A real small LLM behind llama.cpp's real server: free answers fail honestly, forms become programs.

Needs what `make local-llm` installs. Nothing is asserted about what 135M parameters manage in free
text but that every answer ends in a program or a reason.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synth_core.extraction import extract_programs
from synth_core.prompting import render_prompts
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Candidate, Category
from synth_core.sampling.sample import sample
from synth_core.settings import Settings
from synth_core.strategies import effective_strategies

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="`make local-llm` installs it"),
]
_ROOT = Path(__file__).parents[2]
_FAILURES = {Category.TRUNCATED, Category.NO_CODE, Category.SYNTAX_ERROR, Category.REFUSAL}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The server that `make local-llm` starts."""
    command = [sys.executable, str(_ROOT / "scripts" / "local_llm.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def _asked(
    address: str,
    cache: Path,
    max_tokens: int,
    indices: range,
    strategy: str = "high-yield",
    api: str = "chat",
) -> list[Candidate]:
    """Candidates whose prompt the model has answered: for a full module in free text, or with a form."""
    options = {"base_url": address, "api": api, "max_tokens": max_tokens, "timeout": 900, "concurrency": 2}
    about = {"model_name": "local", "strategy": strategy, "seed": 5, "cache_dir": str(cache)}
    settings = Settings.model_validate({**about, "provider": options}).resolved()
    (only,) = effective_strategies(settings)
    with Dispatcher(settings) as dispatcher:
        return extract_programs(dispatcher.complete(render_prompts(sample(settings, only, indices))))


def test_free_answers_end_in_a_program_or_a_reason(address: str, tmp_path: Path) -> None:
    for candidate in _asked(address, tmp_path, 250, range(2)):
        assert candidate.completion is not None
        assert candidate.telemetry.usage.output_tokens > 0
        assert candidate.program is not None or candidate.failure is not None
        if candidate.failure:
            assert candidate.failure.category in _FAILURES
            assert candidate.failure.detail


def test_answers_too_short_for_a_program_fail_for_a_reason(address: str, tmp_path: Path) -> None:
    """Thirty tokens hold no program, whatever the model says."""
    failures = [candidate.failure for candidate in _asked(address, tmp_path, 30, range(2, 3))]
    assert all(failure and failure.category in _FAILURES and failure.detail for failure in failures)


def test_a_grammar_holds_plain_completions_to_the_form(address: str, tmp_path: Path) -> None:
    for candidate in _asked(address, tmp_path, 400, range(4), "small-model", "completions"):
        assert candidate.program is not None, candidate.failure


def test_a_weak_model_reaches_twenty_accepted_programs(address: str, tmp_path: Path) -> None:
    command = f"""generate --strategy small-model --base-url {address} --num-accepted 20
        --num-total-samples 80 --seed 3 --provider-concurrency 2 --provider-timeout 900 --max-tokens 400
        --output-dir {tmp_path / "out"} --cache-dir {tmp_path / "cache"} --json"""
    run = subprocess.run(
        [str(Path(sys.executable).with_name("synth")), *command.split()],
        capture_output=True,
        text=True,
        cwd=_ROOT,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    summary = json.loads(run.stdout)
    assert summary["accepted"] >= 20
    assert len(list((tmp_path / "out").glob("SynthModel_*.py"))) >= 20
