"""Weights that a program uses twice: a pair of inputs, a block applied twice, an embedding projected back."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from recorder import Captured, Recorder

from synth_core.operators import catalog
from synth_core.operators.operator import Group
from synth_core.sampling import coherent
from synth_core.synthesis import sharing
from synth_core.synthesis.build import Written, build
from synth_core.synthesis.enlarge import enlarge

COUNTS = {Group.CORE: 2, Group.COMPOUND: 0, Group.SUPPORTING: 3}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def capture(source: str) -> Captured:
    env: dict[str, Any] = {}
    exec(source, env)
    (program,) = (v for v in env.values() if isinstance(v, type) and issubclass(v, torch.nn.Module))
    args, kwargs = env["get_init_inputs"]()
    module, inputs = program(*args, **kwargs).eval(), env["get_inputs"]()
    recorder = Recorder(module, inputs)
    with recorder:
        result = module(*inputs)
    return recorder.finish(list(result) if isinstance(result, tuple) else [result])


def used_twice(source: str) -> set[str]:
    """The matrices and kernels that calls of the captured graph read more than once."""
    nodes = capture(source).nodes
    weights = {n.name for n in nodes if n.kind == "parameter" and sum(size > 1 for size in n.shape or ()) > 1}
    readers: dict[str, int] = defaultdict(int)
    for node in nodes:
        for name in weights.intersection(node.inputs):
            readers[name] += 1
    return {name for name, count in readers.items() if count > 1}


def written(monkeypatch: pytest.MonkeyPatch, pair: float, twice: float) -> list[tuple[list[str], Written]]:
    monkeypatch.setattr(sharing, "PAIR", pair)
    monkeypatch.setattr(sharing, "TWICE", twice)
    drawn = [coherent.draw(random.Random(seed), COUNTS) for seed in range(24)]
    return [(operators, build(operators, seed)) for seed, operators in enumerate(drawn)]


@pytest.mark.parametrize(("pair", "twice"), [(1.0, 0.0), (0.0, 1.0)], ids=["pair", "twice"])
def test_the_graph_reads_the_weights_that_the_plan_names(
    monkeypatch: pytest.MonkeyPatch, pair: float, twice: float
) -> None:
    programs = [one for one in written(monkeypatch, pair, twice) if "weights of" in one[1].plan]
    assert len(programs) >= 6
    for asked, program in programs:
        assert used_twice(program.source)
        realised = [name for name, _ in capture(program.source).units]
        assert catalog.missing(asked, realised) == []
        assert len(realised) > len(asked)  # both calls count


def test_no_weights_are_used_twice_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop over steps calls its layer at every step; nothing else does."""
    for _, program in written(monkeypatch, 0.0, 0.0):
        if "weights of" not in program.plan and "for " not in program.source:
            assert not used_twice(program.source)


def test_a_pair_is_compared_by_the_operator_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PAIR", 1.0)
    monkeypatch.setattr(sharing, "TWICE", 0.0)
    programs = [build(["Linear", "Tanh", "CosineSimilarity"], seed) for seed in range(8)]
    plans = [program.plan.splitlines() for program in programs if "weights of" in program.plan]
    assert plans
    for plan in plans:
        (compared,) = (row for row in plan if row.startswith("CosineSimilarity"))
        twin = next(row for row in reversed(plan[: plan.index(compared)]) if "->" in row)
        assert twin.split("-> ")[1].split()[0] in compared


def test_an_embedding_is_the_output_projection_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "TIED", 1.0)
    programs = [build(["Embedding", "LayerNorm", "GELU"], seed) for seed in range(6)]
    tied = [program for program in programs if "weights of" in program.plan]
    assert len(tied) >= 3  # a join at the end may have doubled the width
    for program in tied:
        assert "embedding.weight)" in program.source
        assert "embedding.weight" in "".join(used_twice(program.source))
        assert "Linear" in [name for name, _ in capture(program.source).units]


def test_shared_weights_take_gpu_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PAIR", 1.0)
    source = next(
        program.source
        for program in (build(["Conv2d", "ReLU"], seed) for seed in range(8))
        if "weights of" in program.plan
    )
    assert enlarge(source, sets=1, seed=0).constants["batch_size"] > 6
