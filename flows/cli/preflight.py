"""Say a user's mistakes before anything starts: no run begins with settings that cannot work."""

from __future__ import annotations

from flows.prefect_server.secret_block import fetch_key
from synth_core.filtering import resolve_filters
from synth_core.prompting import load_template
from synth_core.providers.table import require_key
from synth_core.settings import Settings
from synth_core.store import Run
from synth_core.strategies import effective_strategies
from synth_core.validation.checks import resolve_skips
from synth_core.validation.contract import resolve_rules


def check_settings(settings: Settings, planned: Run | None = None) -> None:
    """Raise `UsageError` for the first name in the settings that means nothing, or a key that is missing.

    planned: the run that is to go on; its strategies and prompts hold, whatever the settings name now.
    A key in a Secret block is looked for on the user's Prefect server.
    """
    require_key(settings, fetch_key(settings))
    strategies = [one for one, _ in planned.planned()] if planned else effective_strategies(settings)
    for strategy in strategies:
        recorded = planned.prompts.get(strategy.prompt) if planned else None
        load_template(strategy.prompt, settings.model_name, recorded)
    resolve_skips(settings.validation.skip_checks)
    resolve_rules(settings.validation.reject_rules, settings.validation.warn_rules)
    resolve_filters(settings.skip_filters)
