"""One candidate walked through the stages by hand, with everything it carries shown on the way.

No Prefect here: the stages are plain functions, and a person who looks at one candidate wants it at once.
"""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax

from flows.cli.preflight import check_settings
from flows.cli.without_prefect import first_candidates, steps
from synth_core.records import Candidate, Verdict
from synth_core.settings import Settings


def debug(settings: Settings, *, as_json: bool = False) -> bool:
    """Run one candidate from specification to verdict; True when it would have been accepted.

    Prints a page for people, or with `as_json` the finished candidate as one JSON object on stdout.
    """
    console = Console(stderr=as_json, highlight=False)
    check_settings(settings)
    settings = settings.resolved()
    candidates = first_candidates(settings, 1)
    console.print(Rule(f"candidate of strategy {candidates[0].specification.strategy}, seed {settings.seed}"))
    console.print("operators  " + ", ".join(candidates[0].specification.operators))
    with steps(settings) as stages:
        for step in stages:
            before = candidates[0]
            candidates = step(candidates)
            _show(console, before, candidates[0])
            if not candidates[0].alive:
                break
    candidate = candidates[0]
    if as_json:
        print(json.dumps(candidate.model_dump(mode="json")))
    return candidate.alive


def _show(console: Console, before: Candidate, now: Candidate) -> None:
    """Print what one stage added."""
    if now.prompt and not before.prompt:
        console.print(Panel(escape(f"{now.prompt.system}\n\n{now.prompt.text}".strip()), title="prompt"))
    if now.completion and not before.completion:
        usage = now.telemetry.usage
        cost = "unpriced" if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
        title = f"answer: {now.completion.outcome}, {usage.output_tokens} tokens out, {cost}"
        console.print(Panel(escape(now.completion.text or now.completion.error), title=title))
    if now.program and now.program != before.program:
        code = Syntax(now.program.source, "python", line_numbers=True, background_color="default")
        console.print(Panel(code, title=f"program {now.program.name}"))
    if now.graph and not before.graph:
        console.print("realised   " + ", ".join(now.graph.operators))
    for verdict in now.verdicts[len(before.verdicts) :]:
        _show_verdict(console, verdict)


def _show_verdict(console: Console, verdict: Verdict) -> None:
    if verdict.passed:
        where = f" in sandbox tier {verdict.tier}" if verdict.tier else ""
        console.print(f"[green]passed[/]     {verdict.stage}{where}")
        for warning in verdict.warnings:
            console.print(f"[yellow]warning[/]    {escape(warning)}")
    else:
        check = f" ({verdict.check})" if verdict.check else ""
        console.print(f"[red]failed[/]     {verdict.stage}: {verdict.category}{check}")
        console.print(escape(verdict.detail))
