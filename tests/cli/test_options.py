"""Options mean the same wherever they stand, and what the documents show of them is so."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from cyclopts import App

from flows.cli.app import app, run
from flows.cli.options import normalise, settings_options
from synth_core.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("command", ["resume", "report", "export"])
@pytest.mark.parametrize("source", ["environment", ".env", "--config", "--output-dir"])
def test_a_folder_is_found_wherever_it_is_named(
    command: str, source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = [command]
    if source == "environment":
        monkeypatch.setenv("SYNTH_OUTPUT_DIR", "~/programs")
    elif source == ".env":
        Path(".env").write_text("SYNTH_OUTPUT_DIR=~/programs\n")
    elif source == "--config":
        Path("mine.toml").write_text('output_dir = "~/programs"\n')
        tokens += ["--config", "mine.toml"]
    else:
        tokens.append("--output-dir=~/programs")
    assert run(tokens) == 2
    assert capsys.readouterr().err.startswith(f"synth: {Path.home()}/programs contains no")


@pytest.mark.parametrize("command", ["resume", "report", "export"])
def test_a_strategy_that_a_command_has_no_use_for_does_not_stop_it(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SYNTH_STRATEGY", "gone.toml")
    assert run([command, "--output-dir", "programs"]) == 2
    assert "programs contains no" in capsys.readouterr().err


def test_the_settings_file_of_the_documents_says_what_its_comments_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (text,) = re.findall(
        r"^```toml\n(.*?)^```", (ROOT / "docs/usage.md").read_text(), re.DOTALL | re.MULTILINE
    )
    Path("mine.toml").write_text(text)
    tokens = []
    for line in filter(None, text.splitlines()):
        if not line.startswith("["):
            option = re.search(r"#\s+(--[\w-]+)", line)
            assert option, line
            (value,) = tomllib.loads(line).values()
            tokens += [option[1], str(value[0] if isinstance(value, list) else value)]
    loaded: list[Settings] = []
    probe = App(result_action="return_value")

    @probe.default
    @settings_options()
    def note(settings: Settings) -> None:
        loaded.append(settings)

    probe(["--config", "mine.toml"])
    probe(tokens)
    assert loaded[0] == loaded[1] != Settings()


def commands() -> list[str]:
    """What the documents tell a reader to type: lines of blocks, and pieces of text with an option."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            found += [] if kind else re.findall(r"^synth .*?(?= *#| *$)", block, re.MULTILINE)
        found += re.findall(r"(?<!`)`(synth [a-z]+ [^`]*--[^`]*)`", text)
    return found


@pytest.mark.parametrize("command", commands())
def test_a_command_that_a_document_shows_is_understood(command: str) -> None:
    tokens = normalise(shlex.split(command)[1:])
    app.parse_args([token for token in tokens if token != "…"], exit_on_error=False, print_error=False)


def test_every_name_that_an_option_takes_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["checks", "--json"]) == 0
    options = {row["name"]: row["option"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert options["finite"] == "--skip-check"
    assert options["builds"] == ""
    assert options["one_return"] == "--warn-rule"
    assert options["no_buffers"] == "--reject-rule"
    assert options["near-duplicate"] == "--skip-filter"
    for option in {*options.values()} - {""}:
        assert run(["generate", option, "nope"]) == 2
        known = set(re.findall(r"[\w-]+", capsys.readouterr().err))
        assert {name for name, taken in options.items() if taken == option} <= known
