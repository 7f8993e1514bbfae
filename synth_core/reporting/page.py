"""The report as one self-contained HTML file: styles and drawings are inside, without scripts or links."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
from markupsafe import Markup
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import PythonLexer  # type: ignore[import-untyped]

from synth_core.atomic import write_atomic
from synth_core.operators.catalog import CATALOG
from synth_core.operators.operator import Group
from synth_core.reporting import charts
from synth_core.reporting.report import Report
from synth_core.reporting.terminal import calls, duration, money, one_line

_FORMATTER = HtmlFormatter(nowrap=True)


def write_html(report: Report, path: Path | str) -> Path:
    """Write the page atomically. Returns its path."""
    path = Path(path)
    write_atomic(path, render(report).encode())
    return path


def render(report: Report) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=lambda share: f"{share:.1%}",
        count=lambda number: f"{number:,}".replace(",", "\u202f"),
        money=money,
        calls=calls,
        duration=duration,
        one_line=one_line,
        python=_python,
    )
    return environment.get_template("page.html.j2").render(
        report=report,
        style=Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8")),
        syntax=Markup(_syntax_style()),
        funnel=Markup(charts.funnel(report)) if report.attempted else "",
        operators_chart=Markup(charts.operators(report)),
        lengths_chart=Markup(charts.lengths(report)),
        settings=json.dumps(report.settings, indent=2),
        catalog_size=sum(operator.group is not Group.MOTIF for operator in CATALOG),
    )


def _python(source: str) -> Markup:
    """Highlighted Python. Safe as Markup, because Pygments escapes the source."""
    return Markup(highlight(source, PythonLexer(), _FORMATTER))


def _syntax_style() -> str:
    light, dark = (
        HtmlFormatter(style=style).get_style_defs("pre.code") for style in ("friendly", "github-dark")
    )
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
