"""Five kills at random moments, by the script that a person runs with a hundred (benchmarks/chaos.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not() -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "5", "--candidates", "32"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert "5 kills" in result.stdout
