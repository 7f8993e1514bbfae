"""The judge: from what children wrote, honest or not, to verdicts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probing import compiled, eager, judged, program, request, streams_of

from synth_core.records import Graph, Stage, Verdict
from synth_core.validation.checks import CHECKS
from synth_core.validation.evidence import Evidence, EvidenceWriter, Observation
from synth_core.validation.failures import categorise
from synth_core.validation.prover import compiled as compile_stage

CONV = program(
    "return self.linear(torch.relu(self.conv(x)))",
    "self.conv = nn.Conv1d(3, 5, 3)\nself.linear = nn.Linear(8, 4)",
    "torch.randn(2, 3, 10)",
)
CAPTURED, DRAWN, REPEATED = range(3)


@cache
def honest() -> tuple[Evidence, ...]:
    return tuple(streams_of(request(CONV)))


def with_value(stream: int, name: str, value: Any) -> list[Evidence]:
    """What an honest child wrote, but for one value."""
    streams = list(honest())
    streams[stream] = replace(streams[stream], values=streams[stream].values | {name: value})
    return streams


def with_tensor(stream: int, name: str, value: torch.Tensor) -> list[Evidence]:
    """What an honest child wrote, but for one tensor."""
    streams = list(honest())
    streams[stream] = replace(streams[stream], tensors=streams[stream].tensors | {name: value})
    return streams


def without(stream: int, name: str) -> list[Evidence]:
    """What an honest child wrote, but for one record."""
    streams = list(honest())
    streams[stream] = replace(
        streams[stream],
        values={key: value for key, value in streams[stream].values.items() if key != name},
        tensors={key: value for key, value in streams[stream].tensors.items() if key != name},
    )
    return streams


def test_a_sound_program_passes_with_its_graph() -> None:
    fields = judged(request(CONV, requested=["ReLU", "Linear", "Conv1d"]), honest())
    graph = Graph.model_validate(fields.pop("graph"))
    assert graph.operators == ("Conv1d", "ReLU", "Linear")
    verdict = Verdict.model_validate({"stage": Stage.VALIDATE_EAGER, **fields})
    assert verdict.passed
    assert fields["measured"]["faithful"] == {"runs": 3, "bit_for_bit": True}
    json.dumps(fields)


@pytest.mark.parametrize("requested", [["ReLU", "ReLU"], ["Tanh"], ["NoSuchOperator"]])
def test_requested_operators_must_be_realised(requested: list[str]) -> None:
    fields = judged(request(CONV, requested=requested), honest())
    assert (fields["category"], fields["check"]) == ("OPERATORS_MISSING", "operators")
    assert requested[-1] in fields["detail"]


def test_compiled_agrees() -> None:
    fields = compiled(CONV)
    assert fields["passed"], fields
    assert {"eager_vs_fp64", "compiled_vs_eager", "compiled_vs_fp64", "tolerance"} <= set(fields["measured"])


@pytest.mark.parametrize(
    ("forward", "category"),
    [
        ("return torch.log(x)", "NON_FINITE"),
        ("self.n = getattr(self, 'n', 0) + 1\nreturn x * self.n", "NONDETERMINISTIC"),
        ("return 3", "CONTRACT_VIOLATION"),
        ("return x @ x", "SHAPE_ERROR"),
        ("return x.view(5, 5)", "SHAPE_ERROR"),
        ("return torch.cat([x, x[:, :, None]])", "SHAPE_ERROR"),
        ("return x.no_such_method()", "EXCEPTION"),
        ("return 1 / 0", "EXCEPTION"),
    ],
)
def test_failures_have_their_category(forward: str, category: str) -> None:
    fields = eager(program(forward))
    assert fields["category"] == category, fields
    assert "\n" not in fields["detail"]


def test_the_failing_line_is_told() -> None:
    assert "at line 10: return x.no_such_method()" in eager(program("return x.no_such_method()"))["detail"]


def test_other_precisions_are_judged_by_their_own_tolerance() -> None:
    for dtype, rtol in (("bfloat16", 10 / 2**8), ("float16", 10 / 2**11), ("float64", 1e-7)):
        fields = eager(
            program("return self.a(x) * 2.0", f"self.a = nn.Linear(6, 3).to(torch.{dtype})",
                    f"torch.randn(4, 6).to(torch.{dtype})")
        )  # fmt: skip
        assert fields["passed"], fields
        assert fields["measured"]["tolerance"][0]["rtol"] == rtol


def test_a_program_bound_to_one_precision_has_a_reference_all_the_same() -> None:
    """Its graph is rewritten to double precision, conversions to float32 included."""
    fields = compiled(
        program("return torch.tanh(x.float() @ self.w)", "self.w = nn.Parameter(torch.randn(6, 3))")
    )
    assert fields["passed"], fields
    assert fields["warnings"] == ()
    assert "compiled_vs_fp64" in fields["measured"]


def test_a_program_that_draws_numbers_has_no_reference_and_is_warned_of() -> None:
    fields = compiled(program("return torch.tanh(x) * torch.rand(6)"))
    assert fields["passed"], fields
    assert fields["warnings"] == ("reference", "compiled_reference")
    assert "random" in fields["measured"]["no_reference"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_lack_of_memory_for_the_reference_is_an_error(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the program: where there is more memory it may have a reference."""

    def exhausted(tensors: object) -> object:
        raise error("all taken")

    monkeypatch.setattr(compile_stage, "doubled", exhausted)
    fields = compiled(CONV)
    assert (fields["passed"], fields["category"]) == (False, "OUT_OF_MEMORY"), fields


def test_eager_that_loses_all_precision_is_caught_where_compiled_agrees_with_it() -> None:
    fields = compiled(program("return (x + 30000.0) - 30000.0"))
    assert (fields["category"], fields["check"]) == ("NUMERICAL_MISMATCH", "reference")


def test_the_first_failing_check_in_the_stated_order_decides() -> None:
    names = [check.name for check in CHECKS if check.stage is Stage.VALIDATE_EAGER]
    both = program("self.n = getattr(self, 'n', 0) + 1\nreturn torch.relu(-torch.sigmoid(x)) * self.n")
    worse = program("self.n = getattr(self, 'n', 0) + 1\nreturn torch.full((4, 6), float('nan')) * self.n")
    assert eager(both)["check"] == "magnitude"
    assert eager(worse)["check"] == "finite"
    assert names.index("finite") < names.index("deterministic") < names.index("magnitude")


def test_text_that_only_the_gate_would_refuse_is_judged_all_the_same() -> None:
    deep = "DEEP = " + "[" * 150 + "]" * 150
    fields = eager(program("return torch.tanh(x)", top=deep), skip=["static"])
    assert fields["passed"], fields


# Evidence that nobody honest wrote


@pytest.mark.parametrize("missing", ["facts", "graph", "output.0", "leaf.input_0", "leaf.parameter_0"])
def test_a_capture_that_lacks_a_record_passes_nothing(missing: str) -> None:
    assert missing in honest()[CAPTURED].values | honest()[CAPTURED].tensors
    fields = judged(request(CONV), without(CAPTURED, missing))
    assert (fields["passed"], fields["category"]) == (False, "CRASH"), fields


@pytest.mark.parametrize("missing", ["draw.0.0", "draw.1.0", "again.0"])
def test_a_run_on_drawn_inputs_that_is_not_there_passes_nothing(missing: str) -> None:
    assert not judged(request(CONV), without(DRAWN, missing))["passed"]


@pytest.mark.parametrize("name", ["output.0", "draw.0.0", "draw.1.0"])
def test_the_text_must_compute_what_its_graph_does(name: str) -> None:
    stream = CAPTURED if name == "output.0" else DRAWN
    streams = with_tensor(stream, name, honest()[stream].tensor(name) + 1)
    fields = judged(request(CONV, skip=["deterministic"]), streams[:REPEATED])
    assert (fields["check"], fields["category"]) == ("faithful", "NUMERICAL_MISMATCH"), fields


def test_a_weight_that_the_text_did_not_run_with_is_seen() -> None:
    streams = with_tensor(CAPTURED, "leaf.parameter_0", honest()[CAPTURED].tensor("leaf.parameter_0") * 2)
    fields = judged(request(CONV, skip=["deterministic"]), streams[:REPEATED])
    assert fields["check"] == "faithful", fields


def test_other_draws_than_those_asked_for_pass_nothing() -> None:
    fields = judged(request(CONV, draw_seed=12), honest())
    assert fields["check"] == "faithful", fields


def test_one_bit_is_a_difference() -> None:
    flipped = honest()[DRAWN].tensor("again.0").clone()
    flipped.view(torch.int32)[0, 0, 0] ^= 1
    fields = judged(request(CONV), with_tensor(DRAWN, "again.0", flipped))
    assert fields["category"] == "NONDETERMINISTIC"


def test_another_process_must_give_the_same_bits() -> None:
    digests = honest()[REPEATED].json("digests")
    for other in (
        {**digests, "output": ["0" * 64]},
        {**digests, "output": []},
        {**digests, "state": {**digests["state"], "conv.weight": "0" * 64}},
        {**digests, "state": {}},
    ):
        fields = judged(request(CONV), with_value(REPEATED, "digests", other))
        assert fields["category"] == "NONDETERMINISTIC", fields
        assert "in another process" in fields["detail"]


def test_layers_in_the_order_of_a_set_are_seen() -> None:
    fields = eager(
        program(
            "return self.b(self.a(x))",
            "for name in {'a', 'b'}:\n    setattr(self, name, nn.Linear(6, 6))",
        )
    )
    assert fields["category"] == "NONDETERMINISTIC", fields


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: {**graph, "calls": graph["calls"] * 5000},
        lambda graph: {**graph, "calls": [{**graph["calls"][0], "target": "os.system"}]},
        lambda graph: {**graph, "calls": []},
        lambda graph: {**graph, "surplus": 1},
        lambda graph: {**graph, "format": "synth-graph/0"},
        lambda graph: [],
        lambda graph: None,
    ],
)
def test_forged_graphs_pass_nothing(change: Callable[[Any], Any]) -> None:
    forged = json.dumps(change(json.loads(honest()[CAPTURED].json("graph"))))
    fields = judged(request(CONV), with_value(CAPTURED, "graph", forged))
    assert (fields["check"], fields["category"]) == ("full_graph", "CONTRACT_VIOLATION"), fields
    Verdict.model_validate(
        {"stage": Stage.VALIDATE_EAGER} | {k: v for k, v in fields.items() if k != "graph"}
    )


def test_a_graph_that_is_no_text_passes_nothing() -> None:
    graph = json.loads(honest()[CAPTURED].json("graph"))
    fields = judged(request(CONV), with_value(CAPTURED, "graph", graph))
    assert fields["check"] == "full_graph", fields


def test_what_a_program_says_becomes_one_printable_line() -> None:
    fields = eager(program("raise RuntimeError(chr(27) + '[2J' + chr(10) + chr(0xD800) + 'text')"))
    assert fields["detail"].isprintable()
    assert "text" in fields["detail"]


@pytest.mark.parametrize("stream", [CAPTURED, DRAWN, REPEATED])
def test_incomplete_evidence_passes_nothing(stream: int) -> None:
    streams = list(honest())
    streams[stream] = replace(streams[stream], complete=False)
    assert judged(request(CONV), streams)["category"] == "CRASH"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


RECORDS = st.tuples(st.just(CAPTURED), st.sampled_from(["facts", "graph", "error"]), JSON)
DIGESTS = st.builds(lambda output, state: {"output": [output], "state": {"conv.weight": state}}, JSON, JSON)


@settings(max_examples=150, deadline=None)
@given(RECORDS | st.tuples(st.just(REPEATED), st.just("digests"), DIGESTS))
def test_any_value_in_any_record_is_a_failure_of_the_program(place: tuple[int, str, Any]) -> None:
    fields = judged(request(CONV), with_value(*place))
    assert not fields["passed"]
    assert fields["check"] != "prover"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 5000))
def test_any_bytes_get_a_verdict(patch: bytes, at: int) -> None:
    stream = io.BytesIO()
    writer = EvidenceWriter(stream)
    writer.tensor("output.0", torch.randn(4))
    writer.json("facts", {"structure": "tensor"})
    writer.end()
    data = bytearray(stream.getvalue())
    data[at : at + len(patch)] = patch
    fields = judged(request(CONV), [Evidence.read(data, Observation(exit_code=0))])
    assert not fields["passed"]


@pytest.mark.parametrize(
    ("kinds", "message", "phase", "category"),
    [
        (["PermissionError", "OSError"], "[Errno 13] Permission denied: 'x'", "builds", "SANDBOX_VIOLATION"),
        (["OSError"], "[Errno 30] Read-only file system: 'x'", "runs", "SANDBOX_VIOLATION"),
        (["OSError"], "[Errno 2] No such file or directory: 'x'", "runs", "EXCEPTION"),
        (["MemoryError"], "", "runs", "OUT_OF_MEMORY"),
        (["OutOfMemoryError", "RuntimeError"], "CUDA out of memory", "compiles", "OUT_OF_MEMORY"),
        (["RuntimeError"], "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", "runs", "SHAPE_ERROR"),
        (["ValueError"], "num_channels must be divisible by num_groups", "builds", "EXCEPTION"),
        (["InductorError"], "CppCompileError", "compiles", "COMPILE_ERROR"),
        (["SyntaxError"], "invalid syntax", "builds", "SYNTAX_ERROR"),
        (["ZeroDivisionError"], "division by zero", "nonsense", "EXCEPTION"),
    ],
)
def test_exceptions_have_their_category(kinds: list[str], message: str, phase: str, category: str) -> None:
    check, found, detail = categorise({"kinds": kinds, "message": message, "phase": phase, "where": ""})
    assert found.value == category
    assert check in {check.name for check in CHECKS}
    assert detail.startswith(kinds[0])


@pytest.mark.parametrize(
    ("kind", "category"),
    [("graph_break", "GRAPH_BREAK"), ("data_dependent", "GRAPH_BREAK"), ("target", "CONTRACT_VIOLATION")],
)
def test_what_no_record_can_hold_has_its_category(kind: str, category: str) -> None:
    kinds = ["NotCapturable", "Exception", "BaseException", kind]
    error = {"kinds": kinds, "message": "call to print", "phase": "captures", "where": "line 3: print()"}
    check, found, detail = categorise(error)
    assert (check, found.value, detail) == ("full_graph", category, "call to print at line 3: print()")
