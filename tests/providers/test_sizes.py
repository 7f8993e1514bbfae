"""GPU sizes: asked for by `--sizes both`, found while a program is written, and only for our own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asking import candidates

from synth_core.errors import UsageError
from synth_core.extraction import extract_programs
from synth_core.program.constants import constants_of
from synth_core.providers.dispatch import Dispatcher
from synth_core.providers.table import require_key
from synth_core.settings import Settings

Make = Callable[..., Settings]


def test_they_come_with_the_program(make_settings: Make) -> None:
    settings = make_settings(
        "constructive", "", provider={"timeout": 120.0, "sizes": "both", "shape_sets": 1}
    )
    with Dispatcher(settings) as dispatcher:
        (done,) = extract_programs(dispatcher.complete(candidates("constructive", 1)))
    assert done.program is not None
    assert done.completion is not None
    assert done.completion.sizes is not None
    small, bench = constants_of(done.program.source), done.completion.sizes.constants
    assert set(bench) == set(small)
    assert bench["batch_size"] > small["batch_size"]
    assert len(done.completion.sizes.shape_sets) == 1


def test_no_other_provider_s_text_is_tried_unconfined(make_settings: Make) -> None:
    with pytest.raises(UsageError, match="--sizes both is for --model-name constructive, not openai"):
        require_key(make_settings("openai", "http://127.0.0.1:9", provider={"sizes": "both"}))
