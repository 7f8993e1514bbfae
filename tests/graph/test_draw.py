"""Fresh inputs: the same from the same seed, and fit for any program that took the given ones."""

from __future__ import annotations

import pytest
import torch

from synth_core.graph.draw import BLOCK, fresh

GIVEN = {
    "normal": torch.linspace(-3, 3, 600).reshape(20, 30),
    "half": torch.linspace(0, 1, 64).to(torch.bfloat16),
    "transposed": torch.linspace(-1, 1, 24).reshape(4, 6).t(),
    "indices": torch.arange(40).reshape(8, 5) % 7,
    "mask": torch.arange(64).reshape(8, 8) % 3 == 0,
    "ones": torch.ones(5, 5),
    "complex": torch.complex(torch.linspace(0, 1, 9), torch.linspace(1, 2, 9)),
    "infinite": torch.tensor([0.0, float("-inf"), 1.0, 2.0] * 8),
    "scalar": torch.tensor(2.5),
}


@pytest.mark.parametrize("name", GIVEN)
def test_other_values_of_the_same_kind(name: str) -> None:
    given = GIVEN[name]
    (first,), (again,), (other,) = fresh([given], 5), fresh([given.clone()], 5), fresh([given], 6)
    assert (first.shape, first.dtype, first.stride()) == (given.shape, given.dtype, given.stride())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, given)


def test_values_stay_in_range() -> None:
    """An index stays one of those that the program gave, a probability between 0 and 1."""
    (indices,) = fresh([GIVEN["indices"]], 1)
    assert set(indices.flatten().tolist()) <= set(GIVEN["indices"].flatten().tolist())
    for name in ("normal", "half"):
        (drawn,) = fresh([GIVEN[name]], 1)
        assert GIVEN[name].min() <= drawn.min()
        assert drawn.max() <= GIVEN[name].max()
    (infinite,) = fresh([GIVEN["infinite"]], 1)
    assert 0 < int(infinite.isinf().sum()) < infinite.numel()


def test_every_element_of_a_float_changes() -> None:
    (drawn,) = fresh([GIVEN["normal"]], 3)
    assert len(set(drawn.flatten().tolist()) - set(GIVEN["normal"].flatten().tolist())) > 550


def test_two_equal_inputs_are_drawn_apart() -> None:
    first, second = fresh([GIVEN["normal"], GIVEN["normal"]], 1)
    assert not torch.equal(first, second)


def test_a_large_tensor_repeats_a_block() -> None:
    given = torch.zeros(BLOCK + 10)
    given[::2] = 1.0
    (drawn,) = fresh([given], 1)
    assert torch.equal(drawn[BLOCK:], drawn[:10])


def test_nothing_is_drawn_from_the_global_state() -> None:
    state = torch.get_rng_state()
    fresh([GIVEN["normal"], torch.zeros(0, 3)], 1)
    assert torch.equal(state, torch.get_rng_state())
