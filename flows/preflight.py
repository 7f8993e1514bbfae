"""Say a user's mistakes before anything starts: no run begins with settings that cannot work."""

from __future__ import annotations

from collections.abc import Sequence

from flows.keys import fetch_key
from synth_core.filtering import resolve_filters
from synth_core.prompting import load_template
from synth_core.providers.table import require_key
from synth_core.settings import Settings
from synth_core.strategies import Strategy, effective_strategies
from synth_core.validation.checks import resolve_skips
from synth_core.validation.contract import resolve_rules


def check_settings(settings: Settings, strategies: Sequence[Strategy] | None = None) -> None:
    """Raise `UsageError` for the first name in the settings that means nothing, or a key that is missing.

    strategies: those of a run that was planned before; else the ones that the settings name.
    A key in a Secret block is looked for on the user's Prefect server.
    """
    require_key(settings, fetch_key(settings))
    for strategy in strategies or effective_strategies(settings):
        load_template(strategy.prompt, settings.model_name)
    resolve_skips(settings.validation.skip_checks)
    resolve_rules(settings.validation.reject_rules, settings.validation.warn_rules)
    resolve_filters(settings.skip_filters)
