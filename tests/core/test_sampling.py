"""Sampling follows the seed system's rule and depends on nothing but the run's seed and the index."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_core.errors import UsageError
from synth_core.operators.catalog import find
from synth_core.operators.operator import Group
from synth_core.records import Candidate, Category, Stage, Verdict
from synth_core.sampling.coverage import Seen
from synth_core.sampling.sample import again, draw_count, plan, sample
from synth_core.settings import Settings
from synth_core.strategies import effective_strategies, known_strategies, load_strategy, with_provider


def settings(**options: object) -> Settings:
    return Settings.model_validate({"seed": 7, **options})


def sampled(count: int = 200, **options: object) -> list[Candidate]:
    chosen = settings(**options)
    return sample(chosen, effective_strategies(chosen)[0], range(count))


@given(st.integers(0, 5), st.integers(0, 10), st.floats(0.01, 1.0), st.integers())
def test_a_count_stays_in_its_range(low: int, extra: int, p_value: float, seed: int) -> None:
    assert low <= draw_count(random.Random(seed), low, low + extra, p_value) <= low + extra


def test_the_excess_is_geometric_in_p_value() -> None:
    rng = random.Random(1)
    counts = Counter(draw_count(rng, 1, 100, 0.3) for _ in range(40_000))
    # P(excess = k) = 0.3 * 0.7**k; three standard errors of a share of 40,000 draws are below 0.008.
    for k in range(6):
        assert counts[1 + k] / 40_000 == pytest.approx(0.3 * 0.7**k, abs=0.008)


def test_both_ends_of_a_range_are_reached() -> None:
    totals = {
        len(c.specification.operators)
        for c in sampled(
            num_core_ops_range=(1, 2),
            num_compound_ops_range=(0, 1),
            num_supporting_ops_range=(1, 2),
            p_value=0.5,
            sampler="uniform",
        )
    }
    assert totals == {2, 3, 4, 5}


def test_names_are_drawn_with_replacement_from_all_three_groups_and_no_motif() -> None:
    names = [name for c in sampled(2000, strategy="high-diversity") for name in c.specification.operators]
    groups = {find(name).group for name in names}
    assert groups == {Group.CORE, Group.COMPOUND, Group.SUPPORTING}
    assert any(max(Counter(c.specification.operators).values()) > 1 for c in sampled())


def test_a_candidate_depends_on_seed_and_index_alone() -> None:
    alone = sample(settings(), effective_strategies(settings())[0], [150])
    assert sampled(200)[150] == alone[0]
    assert sampled(5) != sampled(5, seed=8)


def test_ranges_that_may_draw_nothing_still_give_an_operator() -> None:
    candidates = sampled(
        num_core_ops_range=(0, 1), num_compound_ops_range=(0, 0), num_supporting_ops_range=(0, 1), p_value=0.9
    )
    assert all(c.specification.operators for c in candidates)


def test_ranges_that_all_end_at_zero_are_a_mistake() -> None:
    with pytest.raises(UsageError, match="asks for no operator"):
        effective_strategies(
            settings(
                num_core_ops_range=(0, 0), num_compound_ops_range=(0, 0), num_supporting_ops_range=(0, 0)
            )
        )


def test_mixed_shares_are_kept_and_cover_every_index_once() -> None:
    parts = load_strategy("mixed")
    assert [part.p_value for part in parts] == [0.1, 0.3, 0.5]
    chunks = plan(parts, first=40, count=100)
    assert [i for _, indices in chunks for i in indices] == list(range(40, 140))
    assert sorted(len(indices) for _, indices in chunks) == [33, 33, 34]


def test_every_shipped_strategy_loads_and_samples() -> None:
    for name in known_strategies():
        chosen = settings(strategy=name)
        for part in effective_strategies(chosen):
            assert sample(chosen, part, range(3))


def test_an_option_wins_over_the_strategy() -> None:
    assert effective_strategies(settings(strategy="high-yield", p_value=0.9))[0].p_value == 0.9


@pytest.mark.parametrize("text", ["p_value = 2", "p_vlaue = 0.5", "p_value = ", "[[parts]]\nfoo = 1"])
def test_a_bad_strategy_file_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_strategy(str(path))
    assert "\n" not in str(caught.value)
    assert "mine" in str(caught.value)


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown strategy 'nope'.*balanced"):
        load_strategy("nope")


def test_a_strategy_made_for_a_provider_chooses_it_unless_the_user_did(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    base = load_strategy("balanced")[0].model_dump(exclude={"name", "provider"})
    lines = [f"{k} = {list(v) if isinstance(v, tuple) else v!r}" for k, v in base.items()]
    path.write_text("\n".join([*lines, 'provider = "local"']))
    assert with_provider(Settings(strategy=str(path))).model_name == "local"
    assert with_provider(Settings(strategy=str(path), model_name="openai")).model_name == "openai"


def fail(candidate: Candidate, category: Category) -> Candidate:
    return candidate.judged(Verdict.fail(Stage.VALIDATE_EAGER, category, "x"))


def test_a_failed_candidate_is_tried_again_with_the_same_operators_and_a_new_seed() -> None:
    first = sampled(1)[0]
    second = again(fail(first, Category.EXCEPTION), settings(max_retries=1))
    assert second is not None
    assert second.attempt == 1
    assert second.parent_id == first.id
    assert second.specification.operators == first.specification.operators
    assert second.specification.seed != first.specification.seed
    assert second.verdicts == ()


def test_a_further_attempt_is_another_question_in_another_run_too() -> None:
    """Else last night's answer to the retry, a failure perhaps, would come again tonight."""
    failed = fail(sampled(1)[0], Category.EXCEPTION)
    retries = [again(failed, settings(seed=seed, max_retries=2)) for seed in range(5)]
    numbers = {retry.specification.sample for retry in retries if retry is not None}
    assert len(numbers - {0}) == 5


@pytest.mark.parametrize(
    ("category", "options"),
    [
        (Category.DUPLICATE, {}),
        (Category.CONTAMINATED, {}),
        (Category.EXCEPTION, {"max_retries": 0}),
        (Category.EXCEPTION, {"on_failure": "drop"}),
    ],
)
def test_what_is_not_tried_again(category: Category, options: dict[str, Any]) -> None:
    assert again(fail(sampled(1)[0], category), settings(**options)) is None


def test_an_accepted_candidate_is_not_tried_again() -> None:
    assert again(sampled(1)[0], settings()) is None


def revisiting(tmp_path: Path, **fields: object) -> Settings:
    lines = [
        f"{name} = {value!r}" for name, value in {"sampler": "coverage", "revisit": 0.5, **fields}.items()
    ]
    balanced = 'p_value = 0.3\ntemperature = 0.6\nprompt = "ordered"\n'
    ranges = "".join(f"num_{group}_ops_range = [1, 2]\n" for group in ("core", "compound", "supporting"))
    path = tmp_path / "again.toml"
    path.write_text(balanced + ranges + "\n".join(lines).replace("'", '"') + "\n")
    return settings(strategy=str(path))


def test_what_worked_is_asked_for_again_at_the_share_that_was_asked(tmp_path: Path) -> None:
    chosen = revisiting(tmp_path)
    (strategy,) = effective_strategies(chosen)
    held, failed = ("Conv2d", "ReLU", "Add"), ("LSTM", "GELU")
    seen = Seen.of([(held, True), (failed, False)])
    drawn = [one.specification for one in sample(chosen, strategy, range(200), seen)]
    again = [one for one in drawn if one.revisit]
    assert 70 <= len(again) <= 130
    assert {one.operators for one in again} == {held}
    assert len({one.sample for one in again}) == len(again)  # no answer that is kept fits
    assert all(one.sample == 0 and one.operators != held for one in drawn if not one.revisit)
    assert not any(
        one.specification.revisit for one in sample(chosen, strategy, range(50))
    )  # nothing is held


def test_no_two_attempts_that_ask_again_ask_for_the_same_answer(tmp_path: Path) -> None:
    """Neither a retry and its neighbour's first attempt, nor the same place of two nights."""
    numbers = []
    for night in (7, 8):
        chosen = revisiting(tmp_path, revisit=1.0).model_copy(update={"seed": night})
        seen = Seen.of([(("Conv2d", "ReLU"), True)])
        for first in sample(chosen, effective_strategies(chosen)[0], range(20), seen):
            second = again(fail(first, Category.SHAPE_ERROR), chosen)
            assert second is not None
            assert second.specification.revisit
            numbers += [first.specification.sample, second.specification.sample]
    assert len(set(numbers)) == len(numbers)
    assert 0 not in numbers


@pytest.mark.parametrize("fields", [{"sampler": "coherent"}, {"operators": ["Linear", "ReLU", "MLP"]}])
def test_asking_again_needs_a_sampler_that_knows_the_folder(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="coverage"):
        effective_strategies(revisiting(tmp_path, **fields))
