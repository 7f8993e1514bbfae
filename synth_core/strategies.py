"""Strategies: named ways to sample and prompt. Each one is a small TOML file in deployments/strategies/.

A strategy with `parts` runs several strategies in given shares. Each part inherits the values at the top of
the file. An option that the user gives always wins over the strategy's value.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from synth_core.errors import UsageError
from synth_core.operators.catalog import find
from synth_core.records import Record
from synth_core.settings import Settings
from synth_core.settings.mistakes import describe, refuse_flags, spell_in_file
from synth_core.settings.values import Names, Probability, Range, Sampler

_FOLDER = files("deployments") / "strategies"


class Strategy(Record):
    """One way to sample and prompt. Every value is decided."""

    name: str
    description: str = ""
    share: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Weight among the parts of a mixed strategy"
    )
    p_value: Probability
    temperature: float = Field(ge=0, le=2)
    num_core_ops_range: Range
    num_compound_ops_range: Range
    num_supporting_ops_range: Range
    prompt: str
    sampler: Sampler = "uniform"
    revisit: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of candidates that ask for accepted operators again, in other shapes",
    )
    operators: Names = Field(
        default=(), description="Names of the operators to draw from; empty: all operators"
    )
    provider: str = Field(default="", description="The provider that this strategy is made for; empty: any")

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        return self.num_core_ops_range, self.num_compound_ops_range, self.num_supporting_ops_range


# Values that a user's option replaces. They have the same name in `Settings` and `Strategy`.
_OVERRIDES = (
    "p_value",
    "temperature",
    "num_core_ops_range",
    "num_compound_ops_range",
    "num_supporting_ops_range",
    "prompt",
    "sampler",
)


def known_strategies() -> list[str]:
    """The names of the strategies that are part of Synth."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml")
    )


def load_strategy(name: str) -> list[Strategy]:
    """The parts of a strategy, by its name or the path of a TOML file. A plain strategy has one part."""
    if name in known_strategies():
        return _parse(name, (_FOLDER / f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml")
    path = Path(name).expanduser()
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read the strategy file {name}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{name} is not UTF-8 text: {error}") from None
        return _parse(path.stem, text, name)
    raise UsageError(
        f"unknown strategy {name!r}; known: {', '.join(known_strategies())}, or the path of a .toml file"
    )


def choose_strategies(settings: Settings) -> tuple[Settings, list[Strategy]]:
    """Read the named strategy once. Gives the settings with the strategy's provider, and its parts.

    An option that the user gave replaces the strategy's value in each part.
    """
    parts = load_strategy(settings.strategy)
    return with_provider(settings, parts), _overlaid(parts, settings)


def effective_strategies(settings: Settings) -> list[Strategy]:
    """The parts of the named strategy, with the user's options in place of the strategy's values."""
    return _overlaid(load_strategy(settings.strategy), settings)


def with_provider(settings: Settings, parts: Sequence[Strategy]) -> Settings:
    """The settings with the provider that the strategy is made for, unless the user named a provider."""
    wanted = {part.provider for part in parts if part.provider}
    if not wanted or "model_name" in settings.model_fields_set:
        return settings
    if len(wanted) > 1:
        raise UsageError(
            f"strategy {settings.strategy!r} names several providers; choose one with --model-name"
        )
    return settings.model_copy(update={"model_name": wanted.pop()})


def _overlaid(parts: Sequence[Strategy], settings: Settings) -> list[Strategy]:
    given = {key: value for key in _OVERRIDES if (value := getattr(settings, key)) is not None}
    parts = [part.model_copy(update=given) for part in parts]
    for part in parts:
        if not any(high for _, high in part.ranges):
            raise UsageError(f"strategy {part.name!r} asks for no operators: every range ends at 0")
        if part.revisit and (part.sampler != "coverage" or part.operators):
            needs = 'needs sampler = "coverage" and must not list operators'
            raise UsageError(f"strategy {part.name!r}: revisit {needs}")
        for operator in part.operators:
            try:
                find(operator)
            except UsageError as error:
                raise UsageError(f"strategy {settings.strategy!r}: {error}") from None
    return parts


def _parse(name: str, text: str, file: str) -> list[Strategy]:
    spell = spell_in_file(file)
    try:
        table: dict[str, Any] = tomllib.loads(text)
        parts = table.pop("parts", None) or [{}]
        if not (isinstance(parts, list) and all(isinstance(part, dict) for part in parts)):
            raise UsageError(f"{file}: each part must be a table under [[parts]]")
        wholes = [{"name": name, **table, **part} for part in parts]
        for whole in wholes:
            refuse_flags(whole, Strategy, spell)
        return [Strategy.model_validate(whole) for whole in wholes]
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from None
    except ValidationError as error:
        raise UsageError(describe(error, Strategy, spell)) from None
