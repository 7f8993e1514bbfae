"""The options of commands, made from the settings model. Every command spells an option the same way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Group, Parameter

from synth_core.settings import Settings
from synth_core.settings.option import Declared, Keys, declared_options
from synth_core.settings.sources import load_settings
from synth_core.strategies import Strategy

_HEADINGS = {"": "Run", "provider": "Provider", "validation": "Validation", "budget": "Budget"}
_GROUPS = {key: Group(title, sort_key=i + 1) for i, (key, title) in enumerate(_HEADINGS.items())}

Config = Annotated[
    Path | None,
    Parameter(
        metavar="FILE",
        help="Read options from this TOML file. Provider, validation and budget options go into the tables"
        " `[provider]`, `[validation]` and `[budget]`",
    ),
]

OF_THE_POOL = tuple(f"validation.{name}" for name in ("pool", "pool_wait", "pool_storage", "pool_fallback"))
# `debug` and `preview` start no run. They filter and store nothing.
OF_A_RUN = (
    *("num_accepted", "batch_size", "output_dir", "runner", "dask_address", "yield_floor", "skip_filters"),
    *OF_THE_POOL,
)


def settings_options(
    *, omit: Sequence[str] = (), groups: Sequence[str] | None = None, only: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate `command(settings, ...)`, so that it takes the options of `Settings` on the command line.

    Without `groups` it takes all options; with `groups`, the options of these groups and those in `only`. It
    never takes those in `omit`. A command omits the options that change nothing in what it does.
    """

    def wanted(option: Declared) -> bool:
        if option.dotted in omit:
            return False
        return groups is None or option.dotted in only or option.keys[0] in groups

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        table = {"_".join(option.keys): option for option in declared_options(Settings) if wanted(option)}
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.name != "settings"]

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            given = {table[name].keys: kwargs.pop(name) for name in table if name in kwargs}
            config = kwargs.pop("config", None)
            nested = _nest({keys: value for keys, value in given.items() if value is not None})
            return command(load_settings(nested, config, _spell), *args, **kwargs)

        parameters = [
            *own,
            inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Config),
            *(_parameter(name, option) for name, option in table.items()),
        ]
        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate


def normalise(tokens: list[str]) -> list[str]:
    """Let `--p_value` mean `--p-value`. Only the option's name changes, never its value."""
    result = []
    for token in tokens:
        if token.startswith("--"):
            name, equals, value = token.partition("=")
            token = name.replace("_", "-") + equals + value
        result.append(token)
    return result


def _spell(keys: Keys) -> str:
    """An option as the command line spells it; anything else dotted."""
    names = (each.option.name for each in declared_options(Settings) if each.keys == keys)
    return next(names, "--" + ".".join(keys).replace("_", "-"))


def _parameter(name: str, declared: Declared) -> inspect.Parameter:
    keys, kind = declared.keys, _type_for(declared.field.annotation)
    parameter = Parameter(
        name=declared.option.name,
        help=f"{declared.field.description}{_default(declared)}",
        group=_GROUPS[keys[0] if len(keys) > 1 else ""],
        metavar=declared.option.value_word or _value_word(declared.field.annotation),
        negative="",
        show_default=False,
    )
    annotation: Any = Annotated[kind | None, parameter]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _default(declared: Declared) -> str:
    """The default as the help shows it; empty where the description says what an empty value means."""
    default = declared.field.default
    if default is None and declared.keys[-1] in Strategy.model_fields:
        return " [default: the strategy's]"
    if default in (None, "", ()) or isinstance(default, bool):
        return ""
    return f" [default: {default:g}]" if isinstance(default, float) else f" [default: {default}]"


def _type_for(annotation: Any) -> Any:
    """The type that the parser reads.

    Numbers and ranges stay text, because the settings model reads them. The parser would round 1.5 to a
    whole number without a word.
    """
    plain = _without_none(annotation)
    if plain is bool or get_origin(plain) is Literal:
        return plain
    if get_origin(plain) is tuple and Ellipsis in get_args(plain):  # the option can be repeated
        return list[str]
    return str


_WORDS: Mapping[Any, str] = {int: "INT", float: "FLOAT", tuple[int, int]: "MIN,MAX"}


def _value_word(annotation: Any) -> str | None:
    """What stands for the value in the help; None leaves it to the parser."""
    return _WORDS.get(_without_none(annotation))


def _without_none(annotation: Any) -> Any:
    """The type itself, for `X | None` and for a type with constraints."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    is_optional = len(parts) == 1 and len(get_args(annotation)) == 2
    plain = parts[0] if is_optional else annotation
    return get_args(plain)[0] if get_origin(plain) is Annotated else plain


def _nest(flat: dict[Keys, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for keys, value in flat.items():
        target = nested
        for key in keys[:-1]:
            target = target.setdefault(key, {})
        target[keys[-1]] = value
    return nested
