"""Where settings come from. Each source wins over the sources after it:

the command line, `SYNTH_*` in the environment, a `.env` file, a TOML file (`--config`), the defaults.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from synth_core.errors import UsageError
from synth_core.settings import Settings
from synth_core.settings.mistakes import (
    Spell,
    describe,
    first_keys,
    option_names,
    refuse_flags,
    spell_dotted,
    spell_in_file,
    suggest,
)
from synth_core.settings.option import Keys

ENV_PREFIX = "SYNTH_"


class _Sources(Settings, BaseSettings):
    """Settings that also read the environment and `.env`. Only `load_settings` uses this class."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        enable_decoding=False,
        extra="ignore",  # a .env file has variables of other programs, too
        frozen=True,
    )


def load_settings(
    options: dict[str, Any] | None = None, config: Path | None = None, spell: Spell = spell_dotted
) -> Settings:
    """Build `Settings` from all sources. Raises `UsageError` with one line for the first mistake.

    Args:
        options: The options given on the command line and no others, nested like `Settings`:
            `{"validation": {"timeout": 5}}`.
        config: A TOML file with the same names. Groups are tables: `[validation]`.
        spell: How the command line spells an option, for messages.
    """
    in_dotenv = refuse_unknown_environment(Settings)
    file_values = read_toml(config) if config else {}
    refuse_flags(file_values, Settings, spell_in_file(config or ""))
    try:
        environment = _Sources().model_dump(exclude_unset=True)
    except ValidationError as error:
        raise UsageError(describe(error, Settings, partial(spell_variable, in_dotenv))) from None
    try:
        return Settings.model_validate(overlay(overlay(file_values, environment), options or {}))
    except ValidationError as error:
        said_here = holds(options or {}, first_keys(error))
        place = spell if said_here or not config else spell_in_file(config)
        raise UsageError(describe(error, Settings, place)) from None


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both merged, group by group. A value in `above` wins."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = overlay(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a settings file. Raises `UsageError` if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None


def refuse_unknown_environment(model: type[BaseModel]) -> set[str]:
    """Refuse a mistyped SYNTH_ variable, which pydantic-settings would ignore. Returns the names in .env."""
    try:
        in_dotenv = {name.upper() for name in dotenv_values(".env")}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read .env: {error}") from None
    known = {*map(_variable, option_names(model)), *map(_variable, model.model_fields)}
    for name in [*in_dotenv, *os.environ]:
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
            option = name[len(ENV_PREFIX) :].lower().replace("__", ".")
            guess = suggest(option, option_names(model), _variable)
            place = _in_place(name, in_dotenv)
            raise UsageError(f"{place}: there is no such option; {guess}")
    return in_dotenv


def _variable(option: str) -> str:
    return (ENV_PREFIX + option.replace(".", "__")).upper()


def holds(values: Any, keys: Keys) -> bool:
    """Whether nested values set the option at `keys`, even to a value of the wrong type."""
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return not isinstance(values, dict)
        values = values[key]
    return True


def spell_variable(in_dotenv: Collection[str], keys: Keys) -> str:
    """The variable that an option was read from. The environment wins over the file."""
    return _in_place(_variable(spell_dotted(keys)), in_dotenv)


def _in_place(name: str, in_dotenv: Collection[str]) -> str:
    from_file = name.upper() in in_dotenv and name.upper() not in map(str.upper, os.environ)
    return f".env: {name}" if from_file else name
