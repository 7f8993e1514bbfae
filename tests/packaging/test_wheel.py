"""A wheel installed elsewhere works: it carries the templates, the strategies and the data files.

It is made of the source distribution, which so is shown to be whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    pack = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)]
    subprocess.run(pack, cwd=ROOT, check=True, capture_output=True)
    (packed,) = folder.glob("*.tar.gz")
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(packed)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)],
        check=True,
        capture_output=True,
    )
    return folder / "site"


def python(installed: Path, code: str) -> str:
    # -P keeps the current folder off sys.path; the checkout must not be what is imported.
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(installed)!r})\n{code}"],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_only_what_belongs_to_the_product(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if path.is_dir() and path.name != "bin"}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "flows",
        "tasks",
        "synth_core",
        "prompts",
        "deployments",
    }


def test_strategies_and_templates_are_found(installed: Path) -> None:
    code = (
        "import synth_core.strategies as s, synth_core.prompting as p; print(s.__file__)\n"
        "from synth_core.settings import Settings; from synth_core.sampling.sample import sample\n"
        "for name in s.known_strategies():\n"
        "    settings = Settings(seed=1, strategy=name)\n"
        "    for part in s.effective_strategies(settings):\n"
        "        (c,) = p.render_prompts(sample(settings, part, [0])); assert c.prompt.text\n"
    )
    assert str(installed) in python(installed, code)


def test_the_command_answers(installed: Path) -> None:
    code = "from flows.cli.app import run; raise SystemExit(run(['operators', '--json']))"
    assert len(python(installed, code).splitlines()) > 130
