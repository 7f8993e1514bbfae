"""A provider of the user's own: every slip in what it returns is an answer that says so, never our fault."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from asking import candidates

from synth_core.errors import HopelessProvider
from synth_core.providers import own
from synth_core.providers.call import Reply, Request
from synth_core.providers.dispatch import Dispatcher
from synth_core.records import Outcome
from synth_core.settings import Settings

_SLIPS = {
    "serving_model=None": "serving_model is None, not of type str",
    "finish_reason=None": "finish_reason is None, not of type str",
    "sizes={}": "sizes is {}, not of type GpuSizes or None",
    "error=None": "error is None",
    "error=ValueError('x')": "error is ValueError('x')",
    "status=None": "status is None",
    "retry_after='2'": "retry_after is '2', not of type int or float or None",
    "retry_after=-1": "retry_after is -1",
    "retry_after=float('nan')": "retry_after is nan",
    "retry_after=float('inf')": "retry_after is inf",
    "seconds='0.3'": "seconds is '0.3'",
    "raised=0": "raised is 0",
    "usage=Usage(output_tokens=-5)": "usage.output_tokens is -5",
    "usage={'input_tokens': 3}": "usage is {'input_tokens': 3}, not of type Usage",
    "text='\\ud800'": "text holds a lone surrogate",
}
_MODULE = """
from synth_core.providers.call import Reply
from synth_core.records import Outcome, Usage
async def slip(request):
    return Reply(**{{"outcome": Outcome.OK, "text": "x", **dict({slip})}})
async def mended(request):
    return Reply(outcome=Outcome.OK, text="x")
"""


@pytest.mark.parametrize("slip", _SLIPS)
def test_a_slip_in_a_reply_is_told_and_never_kept(
    slip: str,
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told in the candidate and at the run's end; not in the cache, where it would stop every resume."""
    module = f"slip_{list(_SLIPS).index(slip)}"
    (tmp_path / f"{module}.py").write_text(_MODULE.format(slip=slip))
    monkeypatch.syspath_prepend(tmp_path)
    name = f"{module}:slip"
    for _ in range(2):
        with Dispatcher(make_settings(name, ""), run_dir=tmp_path / "run") as dispatcher:
            (done,) = dispatcher.complete(candidates(name, 1))
        assert done.completion is not None
        assert done.completion.outcome is Outcome.BAD_REQUEST
        assert f"{name} returned a Reply whose {_SLIPS[slip]}" in done.completion.error
        assert done.telemetry.from_cache == ()
    with (
        Dispatcher(make_settings(name, ""), run_dir=tmp_path / "run") as dispatcher,
        pytest.raises(HopelessProvider, match=r"returned a Reply whose"),
    ):
        dispatcher.complete(candidates(name, 100))


def test_every_field_of_a_reply_is_looked_at() -> None:
    assert set(own._FIELD_TYPES) == {field.name for field in fields(Reply)}


async def spent(request: Request) -> Reply:
    """Says what only the run's own budget says."""
    return Reply(outcome=Outcome.OVER_BUDGET)


def test_a_function_cannot_say_that_the_budget_is_spent(make_settings: Callable[..., Settings]) -> None:
    name = f"{__name__}:spent"
    with Dispatcher(make_settings(name, "")) as dispatcher:
        (done,) = dispatcher.complete(candidates(name, 1))
    assert done.completion is not None
    assert done.completion.outcome is Outcome.BAD_REQUEST


def test_a_module_in_the_current_folder_is_found_and_hides_no_library(tmp_path: Path) -> None:
    """As an installed command starts: its own folder is on the path, the user's is not."""
    (tmp_path / "mymod.py").write_text(_MODULE.format(slip=""))
    (tmp_path / "wave.py").write_text("raise SystemExit('the wrong one')")
    load = "from synth_core.providers.own import _load; print(_load('mymod:mended').__name__)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{load}; import wave"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("mended\n", "")
