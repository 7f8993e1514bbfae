"""Settings: where values come from, which wins, and what a mistake looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from synth_core.errors import UsageError
from synth_core.settings import Settings
from synth_core.settings.sources import load_settings


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_command_line_beats_environment_beats_dotenv_beats_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "synth.toml"
    config.write_text(
        "p_value = 0.1\ntemperature = 0.1\nmax_retries = 1\nseed = 1\n"
        "[validation]\ntimeout = 1\nmemory_mb = 300\n"
    )
    (tmp_path / ".env").write_text(
        "SYNTH_TEMPERATURE=0.2\nSYNTH_MAX_RETRIES=2\nSYNTH_SEED=2\nOPENAI_API_KEY=k\n"
    )
    monkeypatch.setenv("SYNTH_MAX_RETRIES", "3")
    monkeypatch.setenv("SYNTH_SEED", "3")
    monkeypatch.setenv("SYNTH_VALIDATION__TIMEOUT", "3")
    loaded = load_settings({"seed": 4}, config)
    assert (loaded.p_value, loaded.temperature, loaded.max_retries, loaded.seed) == (0.1, 0.2, 3, 4)
    assert (loaded.validation.timeout, loaded.validation.memory_mb) == (3.0, 300)


@pytest.mark.parametrize("text", ["1,5", "[1,5]", "[1, 5]", " 1 , 5 "])
def test_spellings_of_a_range(text: str) -> None:
    assert load_settings({"num_core_ops_range": text}).num_core_ops_range == (1, 5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_core_ops_range": "5,1"}, "num_core_ops_range: min 5 is above max 1"),
        ({"num_core_ops_range": "5"}, "MIN,MAX"),
        ({"num_core_ops_range": "-1,2"}, "below 0"),
        ({"p_value": 0}, "p_value"),
        ({"p_value": 1.01}, "p_value"),
        ({"p_value": "much"}, "p_value"),
        ({"num_total_samples": 0}, "num_total_samples"),
        ({"output_dir": ""}, "output_dir"),
        ({"on_failure": "pray"}, "'resample'"),
        ({"nope": 1}, "unknown option 'nope'"),
        ({"validation": {"timeot": 1}}, "unknown option 'validation.timeot'"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("provider.base_url", "https://user:hush@host/v1"),
        ("provider.base_url", "https://hush@host/v1"),
        ("provider.base_url", "user:hush@host/v1"),
        ("validation.pool_storage", "s3://key:hu/sh@bucket/shards"),
        ("validation.pool_storage", "simplecache::ftp://user:hush@host/shards"),
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(option: str, text: str) -> None:
    group, name = option.split(".")
    with pytest.raises(UsageError, match=f"^{option}: ") as caught:
        load_settings({group: {name: text}})
    assert "hush" not in str(caught.value).replace("hu/sh", "hush")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("provider.base_url", "https://host/v1/@cf/model"),
        ("validation.pool_storage", "abfs://container@account.dfs.core.windows.net/shards"),
        ("validation.pool_storage", "ftp://host:21/of@all"),
        ("validation.pool_storage", "/folder/of@all"),
    ],
)
def test_an_address_may_hold_an_at_sign(option: str, text: str) -> None:
    group, name = option.split(".")
    assert getattr(getattr(load_settings({group: {name: text}}), group), name) == text


@pytest.mark.parametrize("text", ["modle_name = 'x'", "[provider]\nmodle = 'x'", "seed = ", "\xff"])
def test_a_bad_settings_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "synth.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        load_settings({}, path)
    assert "\n" not in str(caught.value)


def test_a_missing_settings_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the settings file"):
        load_settings({}, tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["SYNTH_SEDE", "SYNTH_PROVIDER__MODLE"])
def test_a_mistyped_variable_is_a_mistake(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(UsageError):
        load_settings()


def test_resolved_settings_read_nothing_more_from_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resolved = Settings(output_dir="out").resolved()
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert resolved.resolved() == resolved
    assert resolved.seed is not None
    assert resolved.num_worker >= 1
    assert resolved.output_dir == str(tmp_path / "out")


def test_a_tilde_means_the_home_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves it alone in a file and after `=`."""
    monkeypatch.setenv("HOME", "/somebody")
    (tmp_path / ".env").write_text("SYNTH_OUTPUT_DIR=~/programs\n")
    assert load_settings().output_dir == "/somebody/programs"
    assert load_settings({"output_dir": "~/others"}).output_dir == "/somebody/others"


def test_settings_survive_the_json_that_prefect_stores() -> None:
    settings = Settings(num_core_ops_range=(1, 2), seed=3)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    assert Settings.model_validate({"validation": {"reject_rules": None}}).validation.reject_rules == ()
