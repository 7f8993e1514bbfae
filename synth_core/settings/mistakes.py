"""A mistake in settings as one line that begins with its place: an option, a variable, or a file and key.

The input is an error of pydantic. Only the caller knows where a value came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from synth_core.errors import UsageError
from synth_core.settings.option import Keys, group_model

Spell = Callable[[Keys], str]
_PLAINER = {"tuple_type": "input should be a list of names"}
_FEW = 20  # a message lists at most this many names; --help lists all


def spell_dotted(keys: Keys) -> str:
    """`validation.timeout`."""
    return ".".join(keys)


def spell_in_file(path: Path | str) -> Spell:
    """`mine.toml: validation.timeout`."""
    return lambda keys: f"{path}: {spell_dotted(keys)}"


def first_keys(error: ValidationError) -> Keys:
    """The place of the first problem, without positions in a list."""
    return tuple(part for part in error.errors()[0]["loc"] if isinstance(part, str))


def describe(error: ValidationError, model: type[BaseModel], spell: Spell) -> str:
    """The first problem of a pydantic error as one line. It begins with the place, as `spell` writes it."""
    first, keys = error.errors()[0], first_keys(error)
    kind, given = first["type"], f", got {first['input']!r:.80}"
    place = spell(keys)
    if kind == "extra_forbidden":
        name = spell_dotted(keys)
        return f"{place.removesuffix(name)}unknown option {name!r}; {suggest(name, option_names(model))}"
    if kind == "missing":
        return f"{place} is missing"
    if kind == "model_type":
        options = [spell((*keys, name)).rpartition(" ")[2] for name in _options(model, keys[-1])]
        return f"{place} is a group of options{given}; set one of these: {', '.join(options)}"
    message = _PLAINER.get(kind) or first["msg"].removeprefix("Value error, ")
    return f"{place}: {message[0].lower()}{message[1:]}{'' if kind == 'value_error' else given}"


def option_names(model: type[BaseModel]) -> list[str]:
    """All options of a settings model. Options of a group are dotted."""
    names = []
    for name in model.model_fields:
        inner = _options(model, name)
        names += [f"{name}.{option}" for option in inner] or [name]
    return names


def suggest(name: str, known: Sequence[str], write: Callable[[str], str] = str) -> str:
    """What the user may mean by `name`: options with the same last part, else a similar option, else all."""
    _, _, last = name.rpartition(".")
    meant = [option for option in known if option.rpartition(".")[2] == last]
    if meant := meant or get_close_matches(name, known, 1):
        return f"did you mean {' or '.join(map(write, meant))}?"
    many = len(known) > _FEW
    return "`synth generate --help` lists all options" if many else f"known: {', '.join(map(write, known))}"


def refuse_flags(table: Mapping[str, Any], model: type[BaseModel], spell: Spell, above: Keys = ()) -> None:
    """Refuse `seed = true`. Pydantic would take it as 1."""
    for name, value in table.items():
        group = _group(model, name)
        if group and isinstance(value, dict):
            refuse_flags(value, group, spell, (*above, name))
        elif isinstance(value, bool) and name in model.model_fields and not _is_switch(model, name):
            place = spell((*above, name))
            raise UsageError(f"{place}: true and false are for switches, and this option is not a switch")


def _is_switch(model: type[BaseModel], name: str) -> bool:
    return model.model_fields[name].annotation is bool


def _group(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of the group called `name`; None for an option."""
    return group_model(model.model_fields[name]) if name in model.model_fields else None


def _options(model: type[BaseModel], group: str) -> list[str]:
    inner = _group(model, group)
    return list(inner.model_fields) if inner else []
