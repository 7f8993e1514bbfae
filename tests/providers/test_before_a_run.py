"""What could not work is refused before a run begins, not by its first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flows.cli.generate import resume
from flows.cli.preflight import check_plan
from flows.pipeline.plan import plan_new
from synth_core.errors import UsageError
from synth_core.settings import BudgetSettings, Settings
from synth_core.store import plan_run, save_run

_USD = {"usd": 1.0}


@pytest.mark.parametrize(
    ("provider", "groups", "says"),
    [
        (
            "openai",
            {"budget": _USD, "provider": {"model_id": "my-own"}},
            "model 'my-own' is not known",
        ),
        ("local", {"budget": _USD}, "local's model 'default' is not known, so --budget-usd"),
        (f"{__name__}:Callable", {"budget": _USD}, "give --budget-tokens or --budget-calls instead"),
        ("openai", {"provider": {"ca_bundle": "/nowhere.pem"}}, "cannot read the CA bundle /nowhere.pem"),
        ("gemini", {"provider": {"ca_bundle": __file__}}, "cannot read the CA bundle .*test_before_a_run"),
        ("gemini", {"provider": {"ca_bundle": "/"}}, "cannot read the CA bundle /: "),
    ],
)
def test_settings_that_cannot_work(
    provider: str, groups: dict[str, Any], says: str, make_settings: Callable[..., Settings]
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        check_plan(plan_new(make_settings(provider, "http://127.0.0.1:9/v1", **groups)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("provider", ["openai", "gemini", "constructive"])
def test_a_budget_in_usd_for_a_model_with_a_price(
    provider: str, make_settings: Callable[..., Settings]
) -> None:
    check_plan(plan_new(make_settings(provider, "", budget=_USD)))


def test_a_budget_given_to_a_resumed_run_is_looked_at_too(make_settings: Callable[..., Settings]) -> None:
    run = save_run(plan_run(make_settings("local", "http://127.0.0.1:9/v1")))
    with pytest.raises(UsageError, match="so --budget-usd cannot be kept"):
        resume(run.settings.model_copy(update={"budget": BudgetSettings(usd=1.0)}), run.run_id, as_json=False)
    assert not (run.folder / "report.html").exists()
