"""A user's mistake is one clear line on stderr and exit code 2, and nothing is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import synth


def assert_refused(says: str, *arguments: str, cwd: Path, **environment: Any) -> str:
    done = synth(*arguments, cwd=cwd, **environment)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "--num-total-sample", "5"], "--num-total-sample"),
        (["generate", "--p-value", "0"], "--p-value: "),
        (["generate", "--num-total-samples", "1.5"], "--num-total-samples: "),
        (["generate", "--num-total-samples", "0"], "--num-total-samples: "),
        (["generate", "--num-total-samples", "9" * 24], "--num-total-samples: "),
        (["generate", "--num-worker", "many"], "--num-worker: "),
        (["generate", "--seed", "-1"], "--seed: "),
        (["generate", "--p-value", "1.5"], "--p-value: "),
        (["generate", "--p_value", "much"], "--p-value: "),
        (["generate", "--validation-timeout", "inf"], "--validation-timeout: "),
        (["generate", "--budget-usd", "-1"], "--budget-usd: "),
        (["generate", "--output-dir", ""], "--output-dir: "),
        (["generate", "--model-name", "local", "--base-url", "127.0.0.1:80"], "--base-url: '127.0.0.1:80'"),
        (["generate", "--num-core-ops-range", "5,1"], "min 5 is above max 1"),
        (["generate", "--num_core_ops_range", "[5,1]"], "min 5 is above max 1"),
        (["generate", "--strategy", "nope"], "unknown strategy 'nope'"),
        (["generate", "--model-name", "nope"], "nope"),
        (["generate", "--model-name", "gemini"], "GEMINI_API_KEY"),
        (["generate", "--model-name", "openai"], "OPENAI_API_KEY"),
        (["generate", "--config", "none.toml"], "none.toml"),
        (["generate", "--skip-check", "nope"], "nope"),
        (["generate", "--prompt", "nope"], "nope"),
        (["generate", "--output-dir", "a-file"], "a-file"),
        (["generate", "--on-failure", "pray"], "pray"),
        (["generate", "--runner", "dask", "--dask-address", "nonsense"], "--dask-address: 'nonsense'"),
        (["validate", "missing.py"], "missing.py"),
        (["validate"], "PATH"),
        (["resume", "--output-dir", "nothing-here"], "nothing-here"),
        (["report", "--output-dir", "nothing-here"], "nothing-here"),
        (["export", "--output-dir", "nothing-here", "--run", "nope"], "no run 'nope' in nothing-here"),
        (["export", "--to", "."], "cannot export to ."),
        (["cache", "prune", "--output-dir", "nothing-here"], "nothing-here holds no run"),
        (["operators", "--group", "cor"], "core"),
        (["cache", "prune", "--older-than-days", "-5"], "--older-than-days"),
        (["cache", "prune", "--older-than-days", "nan"], "--older-than-days"),
        (["up", "--port", "99999"], "--port"),
        (["up", "--check", "--home", "nowhere"], "nowhere"),
        (["up", "--home", "a-file"], "--home"),
        (["generate", "--cache-dir", "a-file"], "cache_dir 'a-file' cannot be written to"),
        (["generate", "--cache-dir", "a-file/below"], "cache_dir"),
        (["generat"], "generate"),
        (["generate", "extra"], "extra"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "a-file").write_text("")
    assert_refused(says, *arguments, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SYNTH_SEDE", "3", "SYNTH_SEDE: no option has this name; did you mean SYNTH_SEED?"),
        ("SYNTH_TIMEOUT", "3", "did you mean SYNTH_PROVIDER__TIMEOUT or SYNTH_VALIDATION__TIMEOUT?"),
        ("SYNTH_SEED__X", "3", "SYNTH_SEED__X: no option has this name"),
        ("SYNTH_P_VALUE", "7", "SYNTH_P_VALUE: input should be"),
        ("SYNTH_VALIDATION__TIMEOUT", "x", "SYNTH_VALIDATION__TIMEOUT: input should be"),
        ("SYNTH_VALIDATION", "3", "set one of them: SYNTH_VALIDATION__TIMEOUT, "),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    tmp_path: Path, name: str, value: str, says: str
) -> None:
    assert_refused(
        f"synth: {says}" if says.startswith(name) else says, "generate", cwd=tmp_path, **{name: value}
    )
    (tmp_path / ".env").write_text(f"{name}={value}\n")
    assert_refused(f".env: {name}", "generate", cwd=tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[validation]\ntimeot = 3", "unknown option 'validation.timeot'; did you mean validation.timeout?"),
        ("validation_timeout = 3", "did you mean validation.timeout?"),
        ("timeout = 3", "did you mean provider.timeout or validation.timeout?"),
        ("validation = 3", "validation is a group of options, got 3; set one of them: validation.timeout, "),
        ("skip_filters = 7", "skip_filters: input should be a list of names"),
        ("temperature = nan", "temperature: input should be a finite number"),
        ("seed = true", "seed: true and false"),
        ("num_core_ops_range = [5, 1]", "min 5 is above max 1"),
        ("num_core_ops_range = [1, 2, 3]", "MIN,MAX"),
        ("num_core_ops_range = 3", "MIN,MAX"),
        ("num_core_ops_range = [1.5, 2]", "num_core_ops_range"),
        ("p_value = 0", "p_value"),
        ("[validation]\ntimeout = true", "validation.timeout"),
        ("seed = ", "TOML"),
    ],
)
def test_a_mistake_in_a_settings_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(text + "\n")
    line = assert_refused(says, "generate", "--config", "mine.toml", cwd=tmp_path)
    assert line.startswith("synth: mine.toml")


def test_a_mistake_is_named_where_it_was_made(tmp_path: Path) -> None:
    """The command line goes before the file, so only one of the two can be at fault."""
    (tmp_path / "mine.toml").write_text("seed = 3\np_value = 7\n")
    assert_refused(
        "synth: --seed: ",
        "generate",
        "--config",
        "mine.toml",
        "--seed",
        "x",
        "--p-value",
        "0.5",
        cwd=tmp_path,
    )
    assert_refused(
        "synth: mine.toml: p_value: ", "generate", "--config", "mine.toml", "--seed", "4", cwd=tmp_path
    )


RANGES = 'num_core_ops_range = "1,2"\nnum_compound_ops_range = "0,0"\nnum_supporting_ops_range = "0,0"\n'
STRATEGY = f'p_value = 0.5\ntemperature = 0.5\nprompt = "free"\n{RANGES}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (STRATEGY + 'operators = ["Conv2b"]', "unknown operator 'Conv2b'; did you mean Conv2d"),
        (STRATEGY + "parts = 3", "[[parts]]"),
        (STRATEGY + "parts = [1]", "[[parts]]"),
        (STRATEGY + "colour = 1", "mine.toml: unknown option 'colour'; there are: name, description, share,"),
        (STRATEGY + "[[parts]]\nshare = -1", "mine.toml: share: "),
        (STRATEGY.replace("p_value = 0.5", "p_value = true"), "mine.toml: p_value: true and false"),
        ("p_value = 0.5", "mine.toml: temperature is missing"),
        ("p_value = ", "TOML"),
    ],
)
def test_a_mistake_in_a_strategy_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(text + "\n")
    assert_refused(says, "generate", "--strategy", "mine.toml", cwd=tmp_path)


def test_an_env_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    assert_refused(".env", "generate", cwd=tmp_path)


def test_a_cache_folder_that_no_compiler_can_use_is_refused(tmp_path: Path) -> None:
    assert_refused("SYNTH_CACHE_DIR", "generate", cwd=tmp_path, SYNTH_CACHE_DIR="with a space")


def test_help_lists_the_seed_systems_options_without_heavy_imports(tmp_path: Path) -> None:
    done = synth("generate", "--help", cwd=tmp_path)
    options = ("--num-total-samples", "--num-worker", "--p-value", "--max-retries", "--validation-timeout")
    for option in options:
        assert option in done.stdout
    heavy = "import sys, flows.cli.app; print({'prefect', 'torch', 'polars', 'dask'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"
