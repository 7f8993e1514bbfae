"""The command `synth` as a user starts it: a process of its own, in a folder and a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SYNTH = [sys.executable, "-c", "from flows.cli.app import main; main()"]


def environment(**more: str) -> dict[str, str]:
    """Ours without settings, keys and servers of whoever runs the tests."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SYNTH_", "PREFECT_"))}
    clean.pop("OPENAI_API_KEY", None)
    clean.pop("GEMINI_API_KEY", None)
    return {**clean, **more}


def synth(*arguments: str, cwd: Path, timeout: float = 120, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SYNTH, *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
