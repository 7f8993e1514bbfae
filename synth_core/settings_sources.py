"""Where settings come from beside the command line: a TOML file, the environment, a `.env` file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import BaseModel

from synth_core.errors import UsageError
from synth_core.settings_mistakes import Keys, option_names, spell_dotted, suggest

ENV_PREFIX = "SYNTH_"


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both together, group by group; what `above` says wins."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = overlay(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def read_toml(path: Path) -> dict[str, Any]:
    """A settings file's values; `UsageError` where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None


def refuse_unknown_environment(model: type[BaseModel]) -> set[str]:
    """Refuse a mistyped SYNTH_ variable, which pydantic-settings passes over; returns those of .env."""
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
            raise UsageError(f"{place}: no option has this name; {guess}")
    return in_dotenv


def _variable(option: str) -> str:
    return (ENV_PREFIX + option.replace(".", "__")).upper()


def holds(values: Any, keys: Keys) -> bool:
    """Whether nested values say something of the option at `keys`, be it of the wrong kind."""
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return not isinstance(values, dict)
        values = values[key]
    return True


def spell_variable(in_dotenv: Collection[str], keys: Keys) -> str:
    """The variable that an option was read from; the environment's goes before the file's."""
    return _in_place(_variable(spell_dotted(keys)), in_dotenv)


def _in_place(name: str, in_dotenv: Collection[str]) -> str:
    from_file = name.upper() in in_dotenv and name.upper() not in map(str.upper, os.environ)
    return f".env: {name}" if from_file else name
