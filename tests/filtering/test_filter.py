from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from synth_core.errors import EnvironmentFault, UsageError
from synth_core.filtering import Filter, refuse_held
from synth_core.filtering.index import claims_of
from synth_core.filtering.inventory import index_path
from synth_core.operators.catalog import CATALOG
from synth_core.program.naming import program_name
from synth_core.records import (
    Candidate,
    Category,
    Graph,
    Node,
    Program,
    Specification,
    Stage,
    Verdict,
)
from synth_core.settings import Settings
from synth_core.store import append_ledger, persist, plan_run, save_run

RUN, LATER = "20261125-000000-aaaaaa", "20261126-000000-bbbbbb"


def chain(*operators: str, size: int = 4) -> Graph:
    """x -> op -> op -> …, each operator a call of its own name, of values of `size` elements."""
    calls = [
        Node(
            name=f"n{i}",
            kind="call",
            target=f"torch.{op}",
            inputs=(f"n{i - 1}" if i else "x",),
            operator=op,
            shape=(size,),
        )
        for i, op in enumerate(operators)
    ]
    last = calls[-1].name if calls else "x"
    nodes = (Node(name="x", kind="input"), *calls, Node(name="out", kind="output", inputs=(last,)))
    return Graph(nodes=nodes, operators=operators)


def candidate(index: int, *operators: str, note: str = "") -> Candidate:
    name = program_name(operators)
    return Candidate(
        index=index,
        specification=Specification(
            operators=operators, strategy="s", seed=index, provider="p", prompt="ordered", temperature=0.0
        ),
        program=Program.of(
            name, f"import torch.nn as nn\n\n\nclass {name}(nn.Module):\n    note = {note!r}\n"
        ),
        graph=chain(*operators),
    )


def revisit(index: int, *operators: str, size: int) -> Candidate:
    """A candidate that was asked for what the folder holds, and has it at this size."""
    one = candidate(index, *operators, note=f"asked again {index}")
    asked = one.specification.model_copy(update={"revisit": True})
    return one.model_copy(update={"specification": asked, "graph": chain(*operators, size=size)})


def judged(candidates: list[Candidate]) -> list[Category | None]:
    return [one.failure.category if one.failure else None for one in candidates]


ODD = ("Conv2d", "Tanhshrink", "LPPool2d")
OTHER = ("Bilinear", "Softsign", "CELU")


def test_of_two_alike_in_a_batch_the_first_stays(tmp_path: Path) -> None:
    first, second, other = Filter(tmp_path, RUN).apply(
        [candidate(0, *ODD), candidate(1, *ODD, note="another text"), candidate(2, *OTHER)]
    )
    assert first.passed(Stage.FILTER)
    assert other.passed(Stage.FILTER)
    assert second.failure
    assert second.failure.category is Category.DUPLICATE
    assert second.failure.check == "duplicate-operators"
    assert first.program
    assert first.program.name in second.failure.detail


def test_dead_candidates_pass_through_untouched_and_claim_nothing(tmp_path: Path) -> None:
    dead = candidate(0, *ODD).judged(Verdict.fail(Stage.VALIDATE_EAGER, Category.SHAPE_ERROR, "x"))
    kept, alive = Filter(tmp_path, RUN).apply([dead, candidate(1, *ODD)])
    assert kept == dead
    assert alive.alive


def test_a_later_run_meets_what_an_earlier_one_kept(tmp_path: Path) -> None:
    Filter(tmp_path, RUN).apply([candidate(0, *ODD)])
    (later,) = Filter(tmp_path, LATER).apply([candidate(0, *ODD, note="b")])
    assert later.failure
    assert RUN in later.failure.detail


def test_a_resumed_run_does_not_meet_itself(tmp_path: Path) -> None:
    for _ in range(2):
        assert judged(Filter(tmp_path, RUN).apply([candidate(0, *ODD), candidate(1, *ODD)])) == [
            None,
            Category.DUPLICATE,
        ]


def test_program_files_of_unknown_origin_count(tmp_path: Path) -> None:
    (tmp_path / f"{program_name(ODD)}.py").write_text("class Whatever: ...")
    assert judged(Filter(tmp_path, RUN).apply([candidate(0, *ODD)])) == [Category.DUPLICATE]


def test_a_lost_index_is_built_again_from_the_ledgers(tmp_path: Path) -> None:
    run = save_run(plan_run(Settings(output_dir=str(tmp_path), seed=1)))
    batch = [candidate(0, *ODD), candidate(1, *OTHER)]
    append_ledger(run, persist(Filter(tmp_path, run.run_id).apply(batch), run), round=0, batch=0)
    index_path(tmp_path).unlink()
    assert judged(Filter(tmp_path, run.run_id).apply(batch)) == [None, None]
    index_path(tmp_path).unlink()
    assert judged(Filter(tmp_path, LATER).apply(batch)) == [Category.DUPLICATE] * 2


def test_a_kill_between_the_files_and_the_ledger_loses_nothing(tmp_path: Path) -> None:
    run = save_run(plan_run(Settings(output_dir=str(tmp_path), seed=1)))
    persist(Filter(tmp_path, run.run_id).apply([candidate(0, *ODD)]), run)
    index_path(tmp_path).unlink()
    assert judged(Filter(tmp_path, run.run_id).apply([candidate(0, *ODD)])) == [None]


def test_what_is_asked_for_again_is_a_duplicate_at_equal_shapes_only(tmp_path: Path) -> None:
    again = [revisit(1, *ODD, size=4), revisit(2, *ODD, size=8), revisit(3, *ODD, size=8)]
    _, equal, other, other_again = Filter(tmp_path, RUN).apply([candidate(0, *ODD), *again])
    assert other.alive
    for refused in (equal, other_again):
        assert refused.failure
        assert refused.failure.check == "duplicate-shapes"
    (plain,) = Filter(tmp_path, LATER).apply(
        [candidate(0, *ODD).model_copy(update={"graph": chain(*ODD, size=16)})]
    )
    assert plain.failure
    assert plain.failure.check == "duplicate-operators"


def test_a_resumed_run_does_not_meet_what_it_asked_for_again(tmp_path: Path) -> None:
    batch = [candidate(0, *ODD), revisit(1, *ODD, size=8)]
    for _ in range(2):
        assert judged(Filter(tmp_path, RUN).apply(batch)) == [None, None]


def test_what_came_out_other_than_asked_is_judged_like_any_other(tmp_path: Path) -> None:
    other = Graph(nodes=chain(*ODD, size=8).nodes, operators=("GLU",))
    twin = revisit(1, *ODD, size=8).model_copy(update={"graph": other})
    _, refused = Filter(tmp_path, RUN).apply([candidate(0, *ODD), twin])
    assert refused.failure
    assert refused.failure.check == "duplicate-graph"


def test_a_file_without_known_shapes_is_not_revisited(tmp_path: Path) -> None:
    (tmp_path / f"{program_name(ODD)}.py").write_text("class Whatever: ...")
    (refused,) = Filter(tmp_path, RUN).apply([revisit(0, *ODD, size=8)])
    assert refused.failure
    assert refused.failure.check == "duplicate-operators"


def test_an_index_of_an_older_form_learns_the_shapes(tmp_path: Path) -> None:
    run = save_run(plan_run(Settings(output_dir=str(tmp_path), seed=1)))
    append_ledger(
        run, persist(Filter(tmp_path, run.run_id).apply([candidate(0, *ODD)]), run), round=0, batch=0
    )
    with contextlib.closing(sqlite3.connect(index_path(tmp_path))) as index:
        index.execute("DELETE FROM claims WHERE kind = 'shapes'")
        index.execute("PRAGMA user_version = 0")
        index.commit()
    assert judged(Filter(tmp_path, LATER).apply([revisit(0, *ODD, size=4)])) == [Category.DUPLICATE]


def test_one_graph_under_two_names_is_a_duplicate(tmp_path: Path) -> None:
    relabelled = candidate(1, "Conv2d", "ReLU", "GLU")
    relabelled = relabelled.model_copy(update={"graph": Graph(nodes=chain(*ODD).nodes, operators=("GLU",))})
    _, second = Filter(tmp_path, RUN).apply([candidate(0, *ODD), relabelled])
    assert second.failure
    assert second.failure.check == "duplicate-graph"


@pytest.mark.parametrize(
    "operators",
    [
        ("Conv2d", "Mish", "Mish"),
        ("Linear", "Mish", "Mish"),
        ("Gemm", "Scale", "BatchNorm1d"),
        ("Conv3d", "Hardswish", "GroupNorm", "Mean"),
    ],
)
def test_a_benchmark_s_operator_sequence_is_contamination(tmp_path: Path, operators: tuple[str, ...]) -> None:
    (one,) = Filter(tmp_path, RUN).apply([candidate(0, *operators)])
    assert one.failure
    assert one.failure.category is Category.CONTAMINATED
    assert "KernelBench level2/" in one.failure.detail


def test_the_order_of_a_benchmark_s_operators_matters(tmp_path: Path) -> None:
    assert judged(Filter(tmp_path, RUN).apply([candidate(0, "Mish", "Conv2d", "Mish")])) == [None]


def test_a_filter_that_is_left_out_objects_to_nothing(tmp_path: Path) -> None:
    chosen = Filter(tmp_path, RUN, skip=["duplicate-operators", "duplicate-graph", "near-duplicate"])
    assert judged(chosen.apply([candidate(0, *ODD), candidate(1, *ODD)])) == [None, None]
    assert judged(Filter(tmp_path, LATER).apply([candidate(0, *ODD)])) == [Category.DUPLICATE]


def test_an_unknown_filter_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'nearly'.*duplicate-graph"):
        Filter(tmp_path, RUN, skip=["nearly"])


def test_a_sampled_set_that_cannot_be_kept_is_refused_before_any_call(tmp_path: Path) -> None:
    Filter(tmp_path, RUN).apply([candidate(0, *ODD)])
    sampled = [candidate(0, *ODD), candidate(1, *OTHER), candidate(2, "Conv2d", "Mish", "Mish")]
    refused = [Category.DUPLICATE, None, Category.CONTAMINATED]
    assert judged(refuse_held(sampled, tmp_path, LATER)) == refused
    assert judged(refuse_held(sampled, tmp_path, RUN)) == [None, None, Category.CONTAMINATED]
    assert judged(refuse_held(sampled, tmp_path, LATER, skip=["contaminated"])) == [
        Category.DUPLICATE,
        None,
        None,
    ]


def test_what_is_asked_for_again_may_be_asked(tmp_path: Path) -> None:
    Filter(tmp_path, RUN).apply([candidate(0, *ODD)])
    contaminated = revisit(1, "Conv2d", "Mish", "Mish", size=8)
    asked = refuse_held([revisit(0, *ODD, size=8), contaminated], tmp_path, LATER)
    assert judged(asked) == [None, Category.CONTAMINATED]


def test_a_broken_index_is_our_fault_and_says_what_to_do(tmp_path: Path) -> None:
    index_path(tmp_path).parent.mkdir()
    index_path(tmp_path).write_bytes(b"not a database" * 100)
    with pytest.raises(EnvironmentFault, match="deleting it is safe"):
        Filter(tmp_path, RUN).apply([candidate(0, *ODD)])


def test_an_exception_undoes_the_whole_batch(tmp_path: Path) -> None:
    def fails() -> None:
        with claims_of(tmp_path / "i.sqlite") as claims:
            claims.mark_synced("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with claims_of(tmp_path / "i.sqlite") as claims:
        assert claims.mark_synced("x")


def _filter_many(folder: str, run_id: str, count: int) -> list[bool]:
    names = [row.name for row in CATALOG if not row.folds_to and not row.no_op_in_eval]
    batches = [
        [candidate(i, "Conv2d", "CELU", names[i]) for i in range(start, start + 8)]
        for start in range(0, count, 8)
    ]
    stage = Filter(folder, run_id)
    return [one.alive for batch in batches for one in stage.apply(batch)]


def test_two_runs_that_share_a_folder_never_both_keep_one(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        tasks = [pool.apply_async(_filter_many, (str(tmp_path), run, 64)) for run in (RUN, LATER)]
        first, second = (task.get(60) for task in tasks)
    assert all(a != b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("text", ["x = " + "+".join("1" * 3000), "x = " + "not " * 7000 + "1", "x = ("])
def test_a_text_that_cannot_be_compared_is_refused(text: str, tmp_path: Path) -> None:
    """A copy of a benchmark with such a line has no fingerprint that could give it away."""
    one = candidate(0, "ReLU", "Tanh")
    assert one.program
    hidden = one.model_copy(
        update={"program": Program.of("SynthModel_ReLU", f"{one.program.source}\n{text}\n")}
    )
    (judged,) = Filter(tmp_path, RUN).apply([hidden])
    assert judged.failure
    assert judged.failure.category is Category.CONTAMINATED
    assert "cannot be compared" in judged.failure.detail
