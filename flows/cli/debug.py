"""`synth debug`: take one candidate through the stages and show what each stage adds.

The stages are plain functions and run here without Prefect, so that the result comes quickly.
"""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax

from flows.cli.preflight import check_plan
from flows.cli.without_prefect import first_candidates, steps
from flows.pipeline.plan import plan_new
from synth_core.records import Candidate, Verdict
from synth_core.settings import Settings


def debug(settings: Settings, *, as_json: bool = False) -> bool:
    """Run one candidate from specification to verdict. True if a run would accept it, before the filter.

    Prints text for people. With `as_json`, stdout gets the finished candidate as one JSON object.
    """
    console = Console(stderr=as_json, highlight=False)
    plan = plan_new(settings)
    check_plan(plan)
    candidates = first_candidates(plan, 1)
    strategy, seed = candidates[0].specification.strategy, plan.settings.seed
    console.print(Rule(f"candidate of strategy {strategy}, seed {seed}"))
    console.print("operators  " + ", ".join(candidates[0].specification.operators))
    with steps(plan) as stages:
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
    """Print what one stage has added."""
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
