"""`synthesize`: the same bytes for the same seed, and one clear line for what cannot be."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading

import pytest

import synth_core
from synth_core.operators.catalog import find


def test_the_same_operators_and_seed_give_the_same_bytes() -> None:
    one = synth_core.synthesize(["Conv2d", "GELU", "Linear"], seed=5)
    assert synth_core.synthesize(one.operators, seed=one.seed) == one
    assert synth_core.synthesize(one.operators, seed=6).source != one.source


def test_without_operators_the_default_strategy_draws_them() -> None:
    drawn = [synth_core.synthesize(seed=seed) for seed in (1, 2)]
    assert drawn[0].operators != drawn[1].operators
    assert all(find(name) for one in drawn for name in one.operators)
    assert synth_core.synthesize(seed=1) == drawn[0]
    assert synth_core.synthesize(drawn[0].operators, seed=1) == drawn[0]


@pytest.mark.parametrize("seed", [None, -1, 2**80])
def test_any_seed_will_do_and_is_recorded(seed: int | None) -> None:
    one = synth_core.synthesize(seed=seed)
    assert seed is None or one.seed == seed
    assert synth_core.synthesize(seed=one.seed) == one


def test_what_is_no_operator_is_the_users_mistake() -> None:
    with pytest.raises(synth_core.UsageError, match="unknown operator 'GELUU'; did you mean GELU"):
        synth_core.synthesize(["Linear", "GELUU"])
    with pytest.raises(synth_core.UsageError, match="operators is empty"):
        synth_core.synthesize([])
    with pytest.raises(synth_core.UsageError, match=r"a list of names: \['Linear'\]"):
        synth_core.synthesize("Linear")


def test_what_cannot_be_written_says_so() -> None:
    with pytest.raises(synth_core.CannotWrite, match="no program found for Dropout"):
        synth_core.synthesize(["Dropout"], seed=1)


def test_after_an_interrupt_no_caller_gets_the_answer_to_another_question() -> None:
    many = ["Linear", "LSTM", "GELU"] * 12  # takes long, so the interrupt comes while its answer is awaited
    synth_core.synthesize(["Linear"], seed=0)
    ended = threading.Event()
    threading.Thread(target=_interrupt, args=(ended,), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        _write_for_ever(many)
    ended.set()
    assert synth_core.synthesize(["Linear", "GELU"], seed=1).name == "SynthModel_Linear_GELU"


def _interrupt(ended: threading.Event) -> None:
    """Again and again: Python drops an interrupt that arrives while it collects garbage."""
    wait = 0.3
    while not ended.wait(wait):
        os.kill(os.getpid(), signal.SIGINT)
        wait = 20.0


def _write_for_ever(operators: list[str]) -> None:
    for seed in itertools.count():
        synth_core.synthesize(operators, seed=seed)


def test_a_forked_process_writes_with_a_child_of_its_own() -> None:
    """As a trainer's loader does: parent and fork ask at once, and neither reads the other's answers."""
    synth_core.synthesize(["Linear", "GELU"], seed=0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        theirs = pool.map_async(_names, ["Tanh"])
        assert all("ReLU" in name for name in _names("ReLU"))
        assert all("Tanh" in name for name in theirs.get(100)[0])


def _names(activation: str) -> set[str]:
    return {synth_core.synthesize(["Linear", activation], seed=seed).name for seed in range(30)}
