"""`synth operators` and `synth checks`: the names that options accept, and their meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synth_core.filtering.filters import FILTERS
from synth_core.operators.catalog import CATALOG
from synth_core.validation.checks import CHECKS
from synth_core.validation.contract import ONE_GRAPH, RULES


def show_operators(group: str | None, *, as_json: bool) -> None:
    """Print the catalog of operators, or one group of it."""
    rows = [row for row in CATALOG if group in (None, row.group)]
    if as_json:
        for row in rows:
            print(json.dumps({"name": row.name, "group": row.group, "torch_name": row.torch_name}))
        return
    table = Table("operator", "group", "torch name", "also called")
    for row in rows:
        table.add_row(row.name, row.group, row.torch_name, ", ".join(row.aliases))
    Console().print(table)


def show_checks(*, as_json: bool) -> None:
    """Print all checks, rules of the downstream contract and filters, with the option for each."""
    rows = list(_checks())
    if as_json:
        for name, option, proves in rows:
            print(json.dumps({"name": name, "option": option, "proves": proves}))
        return
    table = Table()
    table.add_column("name", no_wrap=True)
    table.add_column("option", no_wrap=True)
    table.add_column("proves")
    for name, option, proves in rows:
        table.add_row(name, option or "always on", escape(proves))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "A program that fails one of these is rejected. A rule listed with --reject-rule only warns."
    )


def _checks() -> Iterator[tuple[str, str, str]]:
    """Name, option and meaning of each. The option is empty if nothing can switch it off."""
    for check in CHECKS:
        yield check.name, "--skip-check" if check.skippable else "", check.proves
    for rule in RULES:
        if rule is not ONE_GRAPH:  # the check full_graph decides it
            yield rule.name, "--warn-rule" if rule.rejects else "--reject-rule", rule.says
    for each in FILTERS:
        yield each.name, "--skip-filter", each.proves
