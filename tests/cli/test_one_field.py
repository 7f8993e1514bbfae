"""An option is one field: its declaration alone makes command line, environment, file, form and cache key."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pytest
from cyclopts import App
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from flows.cli.options import settings_options
from synth_core.records import Manifest, Stage
from synth_core.settings import Settings
from synth_core.settings.option import NO_STAGE, Declared, Option, declared_options, settings_of
from synth_core.settings.sources import load_settings
from tasks.cache import ShardCache

UPSTREAM = Manifest(path="x", digest="d" * 64, signature="0" * 16, stage=Stage.SAMPLE, total=1, alive=1)
OPTIONS = list(declared_options(Settings))
WORDS = "cuda gpu both chat completions repair fail dask coherent name"
TEXTS = ["true", "1", "7", "0.5", "300", "1,2", *WORDS.split(), "http://127.0.0.1:1", "127.0.0.1:1"]


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def nested(option: Declared, value: Any) -> dict[str, Any]:
    for key in reversed(option.keys):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def another(option: Declared) -> tuple[str, Settings]:
    """A text that gives the option another value than its default, and the settings with it."""
    for text in TEXTS:
        try:
            changed = Settings.model_validate(nested(option, text))
        except ValidationError:
            continue
        if changed != Settings():
            return text, changed
    raise AssertionError(f"no text here sets {option.dotted}")


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.dotted)
def test_an_option_can_be_given_in_every_way(option: Declared, monkeypatch: pytest.MonkeyPatch) -> None:
    text, changed = another(option)
    given: list[Settings] = []
    probe = App(result_action="return_value")
    probe.default(settings_options()(lambda settings: given.append(settings)))
    name, is_switch = option.option.name, option.field.annotation is bool
    probe([name] if is_switch else [name, text])
    table, _, key = option.dotted.rpartition(".")
    Path("mine.toml").write_text(
        f"[{table}]\n" * bool(table) + f"{key} = {'true' if is_switch else repr(text)}\n"
    )
    probe(["--config", "mine.toml"])
    monkeypatch.setenv(f"SYNTH_{option.dotted.replace('.', '__').upper()}", text)
    given.append(load_settings())
    assert given == [changed] * 3
    form = TypeAdapter(Settings).json_schema()
    where = form["$defs"][form["properties"][option.keys[0]]["$ref"].rpartition("/")[2]] if table else form
    assert where["properties"][key]["description"] == option.field.description


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.dotted)
def test_an_option_changes_the_keys_of_the_stages_that_it_affects(option: Declared) -> None:
    _, changed = another(option)
    before, after = ShardCache(Settings(), "run"), ShardCache(changed, "run")
    differ = {stage for stage in Stage if before.key(stage, UPSTREAM) != after.key(stage, UPSTREAM)}
    everywhere = option.dotted == "output_dir"  # shards of one folder are never looked for in another
    assert differ == set(Stage if everywhere else option.option.affects)


def test_options_are_spelled_each_in_its_own_way() -> None:
    names = Counter(option.option.name for option in OPTIONS)
    assert {name for name, times in names.items() if times > 1} == set()
    assert [name for name in names if not re.fullmatch(r"--[a-z]+(-[a-z]+)*", name)] == []


def test_a_field_that_does_not_say_its_spelling_and_its_stages_is_refused() -> None:
    class Silent(BaseModel):
        loud: Annotated[int, Option("--loud", NO_STAGE)] = 1
        silent: int = Field(default=1, description="Says nothing of the command line and the stages")

    with pytest.raises(TypeError, match="'silent' of Silent declares no Option"):
        list(declared_options(Silent))


def test_a_new_field_needs_nothing_else() -> None:
    """A group within a group's model, as a person would add one."""

    class Group(BaseModel):
        knob: Annotated[int, Option("--group-knob", (Stage.EXTRACT,))] = 1

    class Model(BaseModel):
        group: Group = Group()

    (found,) = declared_options(Model)
    assert (found.keys, found.option.name) == (("group", "knob"), "--group-knob")
    assert settings_of(Stage.EXTRACT, Model) == ("group.knob",)
    assert settings_of(Stage.LLM, Model) == ()
