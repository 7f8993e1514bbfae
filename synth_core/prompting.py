"""Renders a specification to a prompt, with a jinja2 template from prompts/ or from the user.

A template may have the blocks `system` and `text`. Without blocks, the whole template is the text.
`NAME.PROVIDER.j2` is a variant of `NAME.j2` for one provider. Files that start with `_` are parts that other
templates include.

Templates may use these names: `operators` (catalog names, in sampled order), `rows` (their catalog rows),
`grouped` (pairs of a group and its names), `class_name`, `seed`, `strategy`, `provider`. Any other name is an
error (StrictUndefined).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2

from synth_core import form
from synth_core.errors import UsageError
from synth_core.operators.catalog import find
from synth_core.program.naming import program_name
from synth_core.records import Candidate, Prompt, Specification, Stage, Verdict, sha256

_FOLDER = files("prompts")
_ENDING = ".j2"


def known_templates() -> list[str]:
    """The template names that `--prompt` accepts. It also accepts files."""
    names = (entry.name.removesuffix(_ENDING) for entry in _FOLDER.iterdir() if entry.name.endswith(_ENDING))
    return sorted(name for name in names if not name.startswith("_") and "." not in name)


def render_prompts(
    candidates: Sequence[Candidate], texts: Mapping[str, str] = MappingProxyType({})
) -> list[Candidate]:
    """Give every live candidate its prompt. A candidate that has a prompt already (a repair) keeps it.

    texts: contents of the user's own prompt files when the run was planned, by path.
    Raises `UsageError` for an unknown template or a template that does not render.
    """

    def prompt(asked: Specification) -> Prompt:
        return render(asked, load_template(asked.prompt, asked.provider, texts.get(asked.prompt)))

    return [
        candidate.judged(Verdict.ok(Stage.PROMPT), prompt=candidate.prompt or prompt(candidate.specification))
        if candidate.alive
        else candidate
        for candidate in candidates
    ]


def render(specification: Specification, template: jinja2.Template | None = None, **extra: Any) -> Prompt:
    """Render the prompt of one specification.

    template: default: the template that the specification names.
    extra: more names for the template.
    Raises `UsageError` for an unknown template, or one that does not render or gives an empty prompt.
    """
    template = template or load_template(specification.prompt, specification.provider)
    rows = [find(name) for name in specification.operators]
    names = {
        "operators": specification.operators,
        "rows": rows,
        "grouped": [
            (group, [row.name for row in rows if row.group == group])
            for group in dict.fromkeys(row.group for row in rows)
        ],
        "class_name": program_name(specification.operators),
        "seed": specification.seed,
        "strategy": specification.strategy,
        "provider": specification.provider,
        **extra,
    }
    if specification.prompt == form.TEMPLATE:
        names["layer_form"] = _layer_form(specification)
    try:
        system, text = _blocks(template, names)
    except jinja2.TemplateError as error:
        raise UsageError(f"prompt template {specification.prompt!r}: {error}") from None
    if not text:
        raise UsageError(f"prompt template {specification.prompt!r} gives an empty prompt")
    digest = sha256(f"{system}\x1f{text}")
    return Prompt(template=specification.prompt, system=system, text=text, digest=digest)


def _layer_form(specification: Specification) -> str:
    try:
        return form.answer_form(specification.operators, specification.seed)
    except form.BadAnswer as error:
        raise UsageError(str(error)) from None


def _blocks(template: jinja2.Template, names: dict[str, Any]) -> tuple[str, str]:
    if not template.blocks:
        return "", template.render(names).strip()
    context = template.new_context(names)
    system, text = (
        "".join(template.blocks[name](context)).strip() if name in template.blocks else ""
        for name in ("system", "text")
    )
    return system, text


def whole_name(template: str) -> str:
    """A known template's name unchanged; any other name as an absolute path."""
    return template if template in known_templates() else str(Path(template).expanduser().absolute())


def own_text(template: str) -> str | None:
    """The contents of the user's own template file. None if the name is one of our templates.

    Raises `UsageError` if there is no such file, or if it is not UTF-8.
    """
    if template in known_templates():
        return None
    try:
        return Path(template).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"the prompt template {template!r} is not UTF-8 text") from None
    except OSError:
        known = ", ".join(known_templates())
        what = f"unknown prompt template {template!r}; known: {known}, or a file of your own"
        raise UsageError(what) from None


@cache
def load_template(name: str, provider: str, text: str | None = None) -> jinja2.Template:
    """The template `name`, in the variant for `provider` if there is one; or the user's file at that path.

    text: contents of the user's file, if they were saved earlier. The file is then not read.
    Raises `UsageError` for an unknown template or a syntax error in it.
    """
    environment = _environment()
    own = own_text(name) if text is None else text
    if own is None:
        return environment.select_template([f"{name}.{provider}{_ENDING}", f"{name}{_ENDING}"])
    try:
        return environment.from_string(own)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"prompt template {name}, line {error.lineno}: {error.message}") from None


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,  # so that an included part ends with a line break
        autoescape=False,  # the output is a prompt, not HTML
    )


def _read(name: str) -> str | None:
    entry = _FOLDER / name
    return entry.read_text(encoding="utf-8") if entry.is_file() else None
