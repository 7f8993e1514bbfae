"""A mistake in settings as one line that names its place: an option, a variable, or a file and its key.

What is read here are pydantic's errors; where a value came from, the caller knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from synth_core.errors import UsageError

Keys = tuple[str, ...]  # a path of names, as ("validation", "timeout")
Spell = Callable[[Keys], str]
_PLAINER = {"tuple_type": "input should be a list of names"}
_FEW = 20  # so many names are listed, more are for --help


def spell_dotted(keys: Keys) -> str:
    """`validation.timeout`."""
    return ".".join(keys)


def spell_in_file(path: Path | str) -> Spell:
    """`mine.toml: validation.timeout`."""
    return lambda keys: f"{path}: {spell_dotted(keys)}"


def first_keys(error: ValidationError) -> Keys:
    """The place of the first problem, positions in a list left out."""
    return tuple(part for part in error.errors()[0]["loc"] if isinstance(part, str))


def describe(error: ValidationError, model: type[BaseModel], spell: Spell) -> str:
    """The first problem of a pydantic error as one line that begins with its place, as `spell` writes it."""
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
        return f"{place} is a group of options{given}; set one of them: {', '.join(options)}"
    message = _PLAINER.get(kind) or first["msg"].removeprefix("Value error, ")
    return f"{place}: {message[0].lower()}{message[1:]}{'' if kind == 'value_error' else given}"


def option_names(model: type[BaseModel]) -> list[str]:
    """All options of a settings model, those of its groups dotted."""
    names = []
    for name in model.model_fields:
        inner = _options(model, name)
        names += [f"{name}.{option}" for option in inner] or [name]
    return names


def suggest(name: str, known: Sequence[str], write: Callable[[str], str] = str) -> str:
    """What a user may have meant by `name`: one of that last name, else a like one, else all there are."""
    _, _, last = name.rpartition(".")
    meant = [option for option in known if option.rpartition(".")[2] == last]
    if meant := meant or get_close_matches(name, known, 1):
        return f"did you mean {' or '.join(map(write, meant))}?"
    many = len(known) > _FEW
    return "`synth generate --help` lists them all" if many else f"there are: {', '.join(map(write, known))}"


def refuse_flags(table: Mapping[str, Any], model: type[BaseModel], spell: Spell, above: Keys = ()) -> None:
    """Refuse `seed = true`, which would count as 1."""
    for name, value in table.items():
        group = _group(model, name)
        if group and isinstance(value, dict):
            refuse_flags(value, group, spell, (*above, name))
        elif isinstance(value, bool) and name in model.model_fields and not _is_switch(model, name):
            place = spell((*above, name))
            raise UsageError(f"{place}: true and false are for switches, and this is none")


def _is_switch(model: type[BaseModel], name: str) -> bool:
    return model.model_fields[name].annotation is bool


def _group(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of the group called `name`; None if it is an option itself."""
    annotation = model.model_fields[name].annotation if name in model.model_fields else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _options(model: type[BaseModel], group: str) -> list[str]:
    inner = _group(model, group)
    return list(inner.model_fields) if inner else []
