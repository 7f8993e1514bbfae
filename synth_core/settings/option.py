"""What a settings field says about itself, beside its type, default and description.

A field declares two things: how the command line spells it, and which stages it affects. The options of
every command and the cache keys of every stage are made from these declarations, so a new option is one
field in `model.py` and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from synth_core.records import Stage

Keys = tuple[str, ...]  # a path of names, such as ("validation", "timeout")

NO_STAGE: Collection[Stage] = ()


@dataclass(frozen=True)
class Option:
    """The declaration of one settings field, put into its type: `Annotated[int, Option(...)]`.

    Attributes:
        spelling: The option on the command line, and the word that stands for its value in the help:
            "--cache-dir FOLDER". Without a word the help takes one from the field's type.
        affects: The stages that can give another result when this setting changes and their candidates
            do not. A change of the setting makes their cached work stale. A field that affects no stage
            says `NO_STAGE`.
    """

    spelling: str
    affects: Collection[Stage]

    @property
    def name(self) -> str:
        """`--cache-dir`."""
        return self.spelling.partition(" ")[0]

    @property
    def value_word(self) -> str:
        """`FOLDER`; empty if the help takes a word from the type."""
        return self.spelling.partition(" ")[2]


@dataclass(frozen=True)
class Declared:
    """One option of a settings model: where its value is, and what its field says."""

    keys: Keys
    field: FieldInfo
    option: Option

    @property
    def dotted(self) -> str:
        """`validation.timeout`."""
        return ".".join(self.keys)


def declared_options(model: type[BaseModel]) -> Iterator[Declared]:
    """All options of a settings model, in order, with those of its groups.

    Raises `TypeError` for a field that declares no `Option`.
    """
    for name, field in model.model_fields.items():
        group = group_model(field)
        if group:
            yield from (
                Declared((name, *each.keys), each.field, each.option) for each in declared_options(group)
            )
            continue
        option = next((part for part in field.metadata if isinstance(part, Option)), None)
        if option is None:
            what = f"the field {name!r} of {model.__name__} declares no Option"
            raise TypeError(f"{what}: say how it is spelled and which stages it affects")
        yield Declared((name,), field, option)


def settings_of(stage: Stage, model: type[BaseModel]) -> tuple[str, ...]:
    """The dotted names of the settings that affect a stage."""
    return tuple(each.dotted for each in declared_options(model) if stage in each.option.affects)


def group_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a group of options; None for a field that is an option itself."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
