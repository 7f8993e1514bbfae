"""A disk that fills up: one line, exit 1, earlier programs intact, and `resume` finishes once there is room.

The disk is a small tmpfs in a mount namespace of its own, which root and, where user namespaces are
allowed, anyone can make.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from command import SYNTH, environment

_NAMESPACE = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]
_SCRIPT = """
    set -u
    run() { eval "$SYNTH" '"$@"'; }

    mount -t tmpfs -o size=2m none disk
    run generate --output-dir disk/out > early.out 2> early.err; echo $? > early.rc

    mount -o remount,size=100m disk
    run generate --output-dir disk/out --num-total-samples 12 --batch-size 3 --seed 3 --strategy high-yield \\
        > late.out 2> late.err & writer=$!
    until compgen -G 'disk/out/*.py' > /dev/null || ! kill -0 $writer 2> /dev/null; do sleep 0.1; done
    head -c 200m /dev/zero > disk/filler 2> /dev/null
    wait $writer; echo $? > late.rc
    mkdir kept; cp disk/out/*.py kept/

    rm disk/filler
    run resume --output-dir disk/out --json > resumed.json 2> resumed.err; echo $? > resumed.rc
    mkdir programs; cp disk/out/*.py programs/
"""


def _can_mount() -> bool:
    command = [*_NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _can_mount(), reason="needs a mount namespace")
def test_a_disk_that_fills_up_costs_one_line_and_no_program(
    tmp_path: Path, warm_up: Callable[[Path], Path]
) -> None:
    warm_up(tmp_path / "home" / ".cache" / "synth")
    (tmp_path / "disk").mkdir()
    script = ["bash", "-c", textwrap.dedent(_SCRIPT)]
    own = environment(SYNTH=shlex.join(SYNTH), HOME=str(tmp_path / "home"))
    subprocess.run([*_NAMESPACE, *script], cwd=tmp_path, env=own, check=True)

    def said(name: str) -> tuple[str, list[str]]:
        lines = (tmp_path / f"{name}.err").read_text().splitlines()
        return (tmp_path / f"{name}.rc").read_text().strip(), [x for x in lines if " attempts " not in x]

    code, lines = said("early")
    assert (code, len(lines)) == ("1", 1)
    assert "no space left on device" in lines[0]
    code, lines = said("late")
    assert (code, len(lines)) == ("1", 1), lines
    assert "no space left on device" in lines[0].lower()
    assert said("resumed")[0] == "0", said("resumed")

    kept, programs = _texts(tmp_path / "kept"), _texts(tmp_path / "programs")
    assert kept
    assert all("def get_init_inputs" in text for text in kept.values())
    assert kept.items() <= programs.items()
    result = json.loads((tmp_path / "resumed.json").read_text())
    assert result["accepted"] == len(programs)
    assert result["attempted"] == len(programs) + sum(result["rejected"].values()) >= 12


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.py")}
