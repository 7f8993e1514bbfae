"""Which batches a run is made of; `carry` here decides by a rule what is accepted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from flows.pipeline.batches import Finished
from flows.pipeline.rounds import JOBS_AT_ONCE, Round, batch_size, go_through_rounds, sized
from synth_core.records import Manifest, Stage
from synth_core.settings import Settings, ValidationSettings
from synth_core.store import Run


def play(settings: Settings, accept: Callable[[int], int], category: str = "CRASH") -> list[Round]:
    """The rounds of a run where `accept(n)` of a batch of n are accepted and the rest drop by `category`."""
    rounds: list[Round] = []

    def carry(this: Round) -> list[Finished]:
        rounds.append(this)
        done = []
        for batch in this.batches:
            total = batch.stop - batch.start or sum(s.total - s.alive for s in batch.sources)
            alive = accept(total)
            manifest = Manifest(
                path=f"r{batch.round}-b{batch.batch}",
                digest="d",
                stage=Stage.PERSIST,
                strategy=batch.strategy,
                total=total,
                alive=alive,
            )
            done.append(Finished(batch, manifest, Counter({category: total - alive})))
        return done

    run = Run(run_id="run", settings=settings.resolved(), versions={}, started=datetime.now(UTC))
    go_through_rounds(run, carry)
    return rounds


@pytest.mark.parametrize(("total", "size"), [(1, 16), (1000, 16), (10_000, 50), (100_000, 256)])
def test_batches_grow_with_the_run(total: int, size: int) -> None:
    assert batch_size(Settings(num_total_samples=total)) == size


@pytest.mark.parametrize(("total", "size"), [(1, 64), (1000, 64), (100_000, 256)])
def test_a_pool_is_not_fed_by_small_batches(total: int, size: int) -> None:
    settings = Settings(num_total_samples=total, validation=ValidationSettings(pool="gpu"))
    assert sized(settings).batch_size == size
    assert batch_size(settings) == batch_size(Settings(num_total_samples=total)), "older runs keep theirs"


@pytest.mark.parametrize("total", [100, 10_000, 20_000])
def test_in_batch_mode_all_jobs_of_a_flow_run_are_under_way_at_once(total: int) -> None:
    settings = Settings.model_validate({"num_total_samples": total, "provider": {"batch": True}})
    assert math.ceil(total / batch_size(settings)) <= JOBS_AT_ONCE


def test_first_attempts_cover_the_run_once_by_strategy() -> None:
    (only,) = play(Settings(num_total_samples=100, strategy="mixed", batch_size=10), lambda n: n)
    positions = [i for batch in only.batches for i in range(batch.start, batch.stop)]
    assert sorted(positions) == list(range(100))
    assert {batch.strategy for batch in only.batches} == {"mixed-p0.1", "mixed-p0.3", "mixed-p0.5"}
    assert [batch.batch for batch in only.batches] == list(range(len(only.batches)))


def test_failures_of_neighbours_fill_a_batch_of_the_next_round() -> None:
    first, second = play(Settings(num_total_samples=64, batch_size=16), lambda n: n // 2)
    assert (first.candidates, second.candidates) == (64, 32)
    assert [len(batch.sources) for batch in second.batches] == [2, 2]
    assert all(batch.round == 1 for batch in second.batches)


@pytest.mark.parametrize(
    ("options", "rounds"),
    [({"max_retries": 3}, 4), ({"max_retries": 0}, 1), ({"max_retries": 3, "on_failure": "drop"}, 1)],
)
def test_tried_again_as_often_as_asked(options: dict[str, object], rounds: int) -> None:
    settings = Settings.model_validate({"num_total_samples": 8, **options})
    assert len(play(settings, lambda n: 0)) == rounds


@pytest.mark.parametrize("category", ["DUPLICATE", "CONTAMINATED"])
def test_what_would_come_out_the_same_is_not_tried_again(category: str) -> None:
    assert len(play(Settings(num_total_samples=8), lambda n: 0, category)) == 1


def test_a_target_is_reached_by_further_first_attempts() -> None:
    rounds = play(Settings(num_accepted=100, max_retries=0), lambda n: n // 3)
    assert sum(this.candidates for this in rounds) < 500
    assert rounds[0].candidates == 100


def test_a_target_out_of_reach_ends_at_its_ceiling() -> None:
    ceiling = play(Settings(num_accepted=10, max_retries=0), lambda n: 0)
    assert sum(this.candidates for this in ceiling) == 200  # 20 attempts an accepted program
    given = play(Settings(num_accepted=10, num_total_samples=37, max_retries=0), lambda n: 0)
    assert sum(this.candidates for this in given) == 37
