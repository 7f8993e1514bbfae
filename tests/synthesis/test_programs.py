"""Programs that the synthesizer writes: every operator, every motif, and many drawn together."""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from typing import Any

import pytest
import torch
from recorder import Recorder
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from synth_core.errors import CannotWrite
from synth_core.operators import catalog
from synth_core.operators.operator import Group, Operator
from synth_core.program.constants import constants_of, with_constants
from synth_core.sampling import coherent
from synth_core.synthesis.build import Written, build
from synth_core.synthesis.enlarge import enlarge
from synth_core.validation import gate

COMPANION = {
    "Identity",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "AlphaDropout",
    "FeatureAlphaDropout",
}
COUNTS = {Group.CORE: 2, Group.COMPOUND: 1, Group.SUPPORTING: 4}


@pytest.fixture(autouse=True)
def _inference() -> Any:
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def run(source: str) -> tuple[list[str], list[torch.Tensor], list[torch.Tensor]]:
    """Execute a file as a consumer does; realised operators, inputs, outputs."""
    env: dict[str, Any] = {}
    exec(source, env)
    (program,) = (v for v in env.values() if isinstance(v, type) and issubclass(v, torch.nn.Module))
    args, kwargs = env["get_init_inputs"]()
    torch.manual_seed(0)
    module, inputs = program(*args, **kwargs).eval(), env["get_inputs"]()
    recorder = Recorder(module, inputs)
    with recorder:
        result = module(*inputs)
    outputs = list(result) if isinstance(result, tuple) else [result]
    return [name for name, _ in recorder.finish(outputs).units], inputs, outputs


@pytest.mark.parametrize("row", catalog.CATALOG, ids=lambda row: row.name)
def test_every_operator_can_be_written_and_is_realised(row: Operator) -> None:
    assert not row.unwritable or row.answered_by
    asked = [row.name, "Tanh"] if row.name in COMPANION else [row.name]
    for seed in range(2):
        realised, _, outputs = run(build(asked, seed).source)
        assert catalog.missing(asked, realised) == []
        assert all(bool(output.isfinite().all()) for output in outputs)


@pytest.fixture(scope="module")
def many() -> list[tuple[list[str], Written]]:
    written = []
    with torch.no_grad():
        for seed in range(40):
            operators = coherent.draw(random.Random(seed), COUNTS)
            written.append((operators, build(operators, seed)))
    return written


def test_drawn_together_they_hold_what_was_asked(many: list[tuple[list[str], Written]]) -> None:
    short = [asked for asked, written in many if catalog.missing(asked, run(written.source)[0])]
    assert len(short) <= 1  # one motif may be read as another that holds it


def test_rows_of_the_batch_differ_and_no_output_is_an_input(many: list[tuple[list[str], Written]]) -> None:
    for _, written in many:
        _, inputs, outputs = run(written.source)
        for output in outputs:
            assert not torch.equal(output[0], output[1])
            storage = output.untyped_storage().data_ptr()
            assert all(storage != given.untyped_storage().data_ptr() for given in inputs)


def test_they_pass_the_static_gate_and_the_downstream_form(many: list[tuple[list[str], Written]]) -> None:
    for _, written in many:
        assert gate.check_source(written.source) is None
        tree = ast.parse(written.source)
        (forward,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "forward")
        assert sum(isinstance(node, ast.Return) for node in ast.walk(forward)) == 1
        assert not any(isinstance(node, ast.Lambda) for node in ast.walk(tree))
        attributes = {n.attr for n in ast.walk(forward) if isinstance(n, ast.Attribute)}
        stored = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
        assert {node.attr for node in stored} <= attributes
        assert max(map(len, written.source.splitlines())) <= 230  # a class name may be long


def test_most_are_graphs_with_little_glue(many: list[tuple[list[str], Written]]) -> None:
    programs = [written for _, written in many]
    assert sum(w.glue for w in programs) <= 0.1 * sum(w.lines for w in programs)
    assert sum(not w.chain for w in programs) >= 0.5 * len(programs)


ENTRY = re.compile(r"(\w+)\(([\w, ]*)\)(, weights of \w+,)? -> (.+)")


def test_the_plan_holds_each_operator_once_with_its_shapes(many: list[tuple[list[str], Written]]) -> None:
    for asked, written in many:
        _, inputs, outputs = run(written.source)
        *rows, returned = written.plan.splitlines()
        given, steps = rows[: len(inputs)], [ENTRY.fullmatch(row) for row in rows[len(inputs) :]]
        shapes = dict(row.split(": ") for row in given)
        for value, (_, text) in zip(inputs, shapes.items(), strict=True):
            assert text == described(value)
        named: Counter[str] = Counter()
        for step in steps:
            assert step is not None
            named[step[1]] += 1
            assert all(name in shapes for name in step[2].split(", "))
            shapes |= dict(re.findall(r"(h\d+) (\[[\d, ]*\])", step[4]))
        names = returned.removeprefix("return ").split(", ")
        assert [shapes[name] for name in names] == [str(list(output.shape)) for output in outputs]
        del named["join"], named["reshape"]
        wanted = Counter(catalog.find(name).name for name in asked)
        again = named - wanted  # weights used again, which a program without any has none of
        assert wanted <= named
        assert not again or "weights of" in written.plan


def described(value: torch.Tensor) -> str:
    dtype = str(value.dtype).removeprefix("torch.")
    return str(list(value.shape)) + ("" if dtype == "float32" else f" {dtype}")


def test_docstrings_say_what_is_true(many: list[tuple[list[str], Written]]) -> None:
    """Arrows only for chains, operators that the code realises, dtypes that are not float32."""
    for _, written in many:
        realised, inputs, outputs = run(written.source)
        docstring = ast.get_docstring(
            next(n for n in ast.parse(written.source).body if isinstance(n, ast.ClassDef))
        )
        assert docstring is not None
        summary, shapes = (
            " ".join(docstring.split("\n\n")[0].split()),
            docstring.split("\n\n")[1].splitlines(),
        )
        assert "->" not in summary or written.chain
        claimed = re.split(r", | and | -> ", summary.removesuffix(".").rpartition(" block of ")[2])
        assert catalog.missing(claimed, realised) == []
        assert "CrossMapLRN2d" not in claimed
        for row, tensors in zip(shapes, [*([value] for value in inputs), outputs], strict=True):
            dtypes = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors]
            assert re.findall(r"\) ([a-z]\w+)", row) == [dtype for dtype in dtypes if dtype != "float32"]


@pytest.mark.parametrize("operator", ["Clamp", "Hardtanh", "Threshold", "Hardshrink", "Softshrink"])
def test_bounds_come_from_live_values(operator: str) -> None:
    """A clamp that clamps nothing, a threshold that kills everything: neither is written."""
    for seed in range(6):
        source = build(["Linear", operator], seed).source
        with Bounded() as seen:
            run(source)
        assert seen.cut
        assert all(0.02 <= share <= 0.8 for share in seen.cut)


class Bounded(TorchFunctionMode):
    """cut: share of its own operand that each bound of a clamp, threshold or shrinker cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: list[float] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        name = function.__name__.strip("_")
        if name in {"clamp", "hardtanh", "threshold", "hardshrink", "softshrink"}:
            values = args[0].detach().as_subclass(torch.Tensor).float()
            low, high = (*args[1:3], None, None)[:2]
            low, high = (named.get(key, bound) for key, bound in (("min", low), ("max", high)))
            low, high = named.get("min_val", low), named.get("max_val", high)
            if name == "threshold":
                self.cut.append(float((values <= args[1]).float().mean()))
            elif name.endswith("shrink"):
                self.cut.append(float((values.abs() <= named.get("lambd", low)).float().mean()))
            else:
                self.cut += [float((values < low).float().mean())] if low is not None else []
                self.cut += [float((values > high).float().mean())] if high is not None else []
        return function(*args, **named)


@pytest.mark.parametrize("first", ["RotaryEmbedding", "LayerNorm"])
def test_half_precision_stays_half(monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    """Angles are computed in single precision, and what they turn becomes so; joined, the rest does too."""
    monkeypatch.setattr("synth_core.synthesis.build.HALF", 0.5)
    precisions = set()
    for seed in range(12):
        _, inputs, outputs = run(build([first, "Linear", "CausalAttention"], seed).source)
        precisions.add(inputs[0].dtype)
        assert {output.dtype for output in outputs} == {inputs[0].dtype}
    assert torch.float32 in precisions
    assert first == "RotaryEmbedding" or len(precisions) > 1


def test_a_third_of_the_small_programs_is_in_half_precision() -> None:
    """Drawn once a program, not at every start: some 8% of all, as most are too large for it."""
    written = [build(["Linear", "GELU", "LayerNorm"], seed).source for seed in range(60)]
    assert 12 <= sum("float16" in source for source in written) <= 30


def test_recurrences_are_short_and_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth_core.synthesis.build.HALF", 1.0)
    sources = [build(["Conv2d", "Flatten", "GRU"], seed).source for seed in range(20)]
    assert not any("float16" in source for source in sources)
    steps = []
    hook = register_module_forward_pre_hook(
        lambda module, args: steps.append(args[0].shape[1]) if isinstance(module, nn.GRU) else None
    )
    try:
        for source in sources:
            run(source)
    finally:
        hook.remove()
    assert 64 < max(steps) <= 200


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(CannotWrite, match="Dropout"):
        build(["Dropout"], 0)


def test_gpu_sizes_and_shape_sets_run() -> None:
    source = build(["Conv2d", "ReLU", "GlobalAvgPool", "Linear"], 3).source
    bench = enlarge(source, sets=2, seed=0)
    assert bench.constants["batch_size"] > constants_of(source)["batch_size"]
    assert bench.flops > 1e6
    assert bench.intensity == pytest.approx(bench.flops / bench.bytes, rel=1e-2)
    assert len(bench.shape_sets) == 2
    for constants in bench.shape_sets:
        few = {**constants, "batch_size": 2, "height": constants["height"] // 4}
        _, inputs, _ = run(with_constants(source, few))
        assert inputs[0].shape[1:] == (few["in_channels"], few["height"], few["width"])


def test_steps_of_an_unrolled_loop_stay_few() -> None:
    source = build(["StateSpaceScan", "LayerNorm"], 0).source
    assert "for t in range(" in source
    bench = enlarge(source, sets=1, seed=0)
    assert bench.constants["seq_len"] == constants_of(source)["seq_len"]
    assert bench.constants["batch_size"] > constants_of(source)["batch_size"]


def test_a_program_that_does_not_run_has_no_other_sizes() -> None:
    with pytest.raises(ValueError, match="FakeTensor"):
        enlarge("x = 1", sets=0, seed=0)
