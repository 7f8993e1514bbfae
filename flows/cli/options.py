"""The settings model as command-line options: one table, so that every command spells them alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Group, Parameter
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from synth_core.settings import Settings
from synth_core.settings.sources import load_settings
from synth_core.strategies import with_provider

# Options of the groups whose own name would be unclear, or is fixed by the seed system.
_SPELLINGS: dict[tuple[str, ...], str] = {
    ("skip_filters",): "skip_filter",
    ("provider", "timeout"): "provider_timeout",
    ("provider", "retries"): "provider_retries",
    ("provider", "concurrency"): "provider_concurrency",
    ("provider", "batch"): "provider_batch",
    ("validation", "timeout"): "validation_timeout",
    ("validation", "skip_checks"): "skip_check",
    ("validation", "reject_rules"): "reject_rule",
    ("validation", "warn_rules"): "warn_rule",
    ("validation", "pool"): "validation_pool",
    ("validation", "pool_wait"): "validation_pool_wait",
    ("validation", "pool_fallback"): "validation_pool_fallback",
    ("budget", "usd"): "budget_usd",
    ("budget", "tokens"): "budget_tokens",
    ("budget", "calls"): "budget_calls",
    ("budget", "wall_s"): "budget_wall_s",
}
_HEADINGS = {"": "Run", "provider": "Provider", "validation": "Validation", "budget": "Budget"}
_GROUPS = {key: Group(title, sort_key=i + 1) for i, (key, title) in enumerate(_HEADINGS.items())}

Config = Annotated[
    Path | None,
    Parameter(
        help="TOML file of options; those under Provider, Validation and Budget stand in a table of that "
        "name: `[validation]`, `timeout = 90`"
    ),
]


def settings_options(
    *, omit: Sequence[str] = (), groups: Sequence[str] | None = None, only: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate `command(settings, ...)` so that it takes the options of `Settings` on the command line.

    All of them but those in `omit`; or, where `groups` is given, the groups named there and those in `only`.
    """

    def wanted(name: str, path: tuple[str, ...]) -> bool:
        if groups is None:
            return name not in omit
        return name in only or path[0] in groups

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        table = {name: (path, field) for name, path, field in _walk() if wanted(name, path)}
        own = [
            p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"
        ]

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in [*table] if name in kwargs}
            config = kwargs.pop("config", None)
            nested = _nest({table[name][0]: value for name, value in given.items() if value is not None})
            settings = load_settings(nested, config, _spell)
            if "model_name" in table:  # else no strategy is of concern, be its file there or not
                settings = with_provider(settings)
            return command(settings, *args, **kwargs)

        parameters = [
            *own,
            inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Config),
            *(_parameter(name, path, field) for name, (path, field) in table.items()),
        ]
        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate


def normalise(tokens: list[str]) -> list[str]:
    """`--p_value` means `--p-value`; only the option's name is touched, never its value."""
    result = []
    for token in tokens:
        if token.startswith("--"):
            name, equals, value = token.partition("=")
            token = name.replace("_", "-") + equals + value
        result.append(token)
    return result


def _walk() -> Iterator[tuple[str, tuple[str, ...], FieldInfo]]:
    """(option name, path in Settings, field) of every option."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for inner, inner_field in field.annotation.model_fields.items():
                yield _SPELLINGS.get((name, inner), inner), (name, inner), inner_field
        else:
            yield _SPELLINGS.get((name,), name), (name,), field


def _spell(keys: tuple[str, ...]) -> str:
    """An option as the command line has it."""
    names = (name for name, path, _ in _walk() if path == keys)
    return "--" + next(names, ".".join(keys)).replace("_", "-")


def _parameter(name: str, path: tuple[str, ...], field: FieldInfo) -> inspect.Parameter:
    default = field.default
    shown = "" if default in (None, "", ()) or isinstance(default, bool) else f" [default: {default}]"
    group = _GROUPS[path[0] if len(path) > 1 else ""]
    annotation: Any = Annotated[
        _type_for(field) | None,
        Parameter(help=f"{field.description}{shown}", group=group, negative="", show_default=False),
    ]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _type_for(field: FieldInfo) -> Any:
    """The type shown in --help; a range or a whole number stays text, since the settings model alone reads
    it (the parser would round 1.5)."""
    annotation = field.annotation
    options = [part for part in get_args(annotation) if part is not type(None)]
    for plain in (bool, float):
        if annotation is plain or plain in options:
            return plain
    if get_origin(annotation) is Literal:
        return annotation
    if len(options) == 1 and get_origin(options[0]) is Literal:
        return options[0]
    if "..." in str(annotation) or Ellipsis in options:  # a tuple of any length: the option repeats
        return list[str]
    return str


def _nest(flat: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        target = nested
        for key in path[:-1]:
            target = target.setdefault(key, {})
        target[path[-1]] = value
    return nested
