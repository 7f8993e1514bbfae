"""From a specification to a prompt: jinja2 templates under prompts/, or one of the user's own.

A template has up to two blocks, `system` and `text`; one without blocks is all text. `NAME.PROVIDER.j2` is
the variant of `NAME.j2` that a provider gets. Files that start with `_` are parts for others to include.

Templates may use: `operators` (catalog names, in sampled order), `rows` (their catalog rows), `grouped`
(pairs of group and names), `class_name`, `seed`, `strategy`, `provider`. Any other name is an error
(StrictUndefined).
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
    """Names that `--prompt` takes, besides files."""
    names = (entry.name.removesuffix(_ENDING) for entry in _FOLDER.iterdir() if entry.name.endswith(_ENDING))
    return sorted(name for name in names if not name.startswith("_") and "." not in name)


def render_prompts(
    candidates: Sequence[Candidate], texts: Mapping[str, str] = MappingProxyType({})
) -> list[Candidate]:
    """Give every live candidate its prompt; one that has a prompt already (a repair) keeps it.

    texts: what files of the user's own held when the run was planned, by path.
    Raises `UsageError` for an unknown template or one that does not render.
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
    """The prompt of one specification, by the template it names or a given one; `extra` holds further names
    that the template uses."""
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
    """A template's name as it is; the path of a file made absolute."""
    return template if template in known_templates() else str(Path(template).expanduser().absolute())


def own_text(template: str) -> str | None:
    """What a file of the user's own holds, None for a template of ours; `UsageError` if there is neither."""
    if template in known_templates():
        return None
    try:
        return Path(template).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"the prompt template {template!r} is no UTF-8 text") from None
    except OSError:
        known = ", ".join(known_templates())
        what = f"unknown prompt template {template!r}; known: {known}, or a file of your own"
        raise UsageError(what) from None


@cache
def load_template(name: str, provider: str, text: str | None = None) -> jinja2.Template:
    """The template called `name` in the variant of `provider`, if there is one, or the file of that path.

    text: what that file held, where it may have changed since.
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
        keep_trailing_newline=True,  # an included part ends its own line
        autoescape=False,  # the output is a prompt, not HTML
    )


def _read(name: str) -> str | None:
    entry = _FOLDER / name
    return entry.read_text(encoding="utf-8") if entry.is_file() else None
