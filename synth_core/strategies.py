"""Strategies: named ways to sample and prompt, one small TOML file each under deployments/strategies/.

A strategy with `parts` runs several in given shares; a part inherits what its file says at the top. An
option that the user gave always wins over the strategy's value.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from synth_core.errors import UsageError
from synth_core.operators.catalog import find
from synth_core.records import Record
from synth_core.settings import Settings
from synth_core.settings.mistakes import describe, refuse_flags, spell_in_file
from synth_core.settings.values import Names, Probability, Range

_FOLDER = files("deployments") / "strategies"


class Strategy(Record):
    """One way to sample and prompt, with every value decided."""

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
    sampler: Literal["uniform", "coherent", "coverage"] = "uniform"
    revisit: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of candidates that ask again, in other shapes, for what was accepted",
    )
    operators: Names = Field(default=(), description="Catalog names to draw from; empty: all")
    provider: str = Field(default="", description="Provider this strategy is made for; empty: any")

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        return self.num_core_ops_range, self.num_compound_ops_range, self.num_supporting_ops_range


# What a user's option replaces, under the same name in `Settings` and `Strategy`.
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
    """Names of the strategies that ship with Synth."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml")
    )


def load_strategy(name: str) -> list[Strategy]:
    """The parts of a strategy (one part for a plain one), given its name or the path of a TOML file."""
    if name in known_strategies():
        return _parse(name, (_FOLDER / f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml")
    path = Path(name).expanduser()
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read the strategy file {name}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{name} is no text in UTF-8: {error}") from None
        return _parse(path.stem, text, name)
    raise UsageError(f"unknown strategy {name!r}; known: {', '.join(known_strategies())}, or a .toml file")


def effective_strategies(settings: Settings) -> list[Strategy]:
    """The strategies of a run: the named one's parts, overlaid with the options that were given."""
    given = {key: value for key in _OVERRIDES if (value := getattr(settings, key)) is not None}
    parts = [part.model_copy(update=given) for part in load_strategy(settings.strategy)]
    for part in parts:
        if not any(high for _, high in part.ranges):
            raise UsageError(f"strategy {part.name!r} asks for no operator: every range ends at 0")
        if part.revisit and (part.sampler != "coverage" or part.operators):
            needs = 'needs sampler = "coverage" and no list of operators'
            raise UsageError(f"strategy {part.name!r}: revisit {needs}")
        for operator in part.operators:
            try:
                find(operator)
            except UsageError as error:
                raise UsageError(f"strategy {settings.strategy!r}: {error}") from None
    return parts


def with_provider(settings: Settings) -> Settings:
    """`settings` with the provider its strategy is made for, unless the user named one."""
    wanted = {part.provider for part in load_strategy(settings.strategy) if part.provider}
    if not wanted or "model_name" in settings.model_fields_set:
        return settings
    if len(wanted) > 1:
        raise UsageError(
            f"strategy {settings.strategy!r} names several providers; choose one by --model-name"
        )
    return settings.model_copy(update={"model_name": wanted.pop()})


def _parse(name: str, text: str, file: str) -> list[Strategy]:
    spell = spell_in_file(file)
    try:
        table: dict[str, Any] = tomllib.loads(text)
        parts = table.pop("parts", None) or [{}]
        if not (isinstance(parts, list) and all(isinstance(part, dict) for part in parts)):
            raise UsageError(f"{file}: parts are tables, each under [[parts]]")
        wholes = [{"name": name, **table, **part} for part in parts]
        for whole in wholes:
            refuse_flags(whole, Strategy, spell)
        return [Strategy.model_validate(whole) for whole in wholes]
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not valid TOML: {error}") from None
    except ValidationError as error:
        raise UsageError(describe(error, Strategy, spell)) from None
