"""The checks before a run. They find a user's mistakes before anything starts or costs money."""

from __future__ import annotations

from flows.pipeline.plan import Plan
from synth_core.filtering import resolve_filters
from synth_core.prompting import load_template
from synth_core.providers.table import require_key
from synth_core.validation.checks import resolve_skips
from synth_core.validation.contract import resolve_rules


def check_plan(plan: Plan) -> None:
    """Raise `UsageError` for the first unknown name in the settings, or if a key is missing."""
    settings = plan.settings
    require_key(settings, plan.key)
    for strategy, _ in plan.strategies:
        load_template(strategy.prompt, settings.model_name, plan.run.prompts.get(strategy.prompt))
    resolve_skips(settings.validation.skip_checks)
    resolve_rules(settings.validation.reject_rules, settings.validation.warn_rules)
    resolve_filters(settings.skip_filters)
