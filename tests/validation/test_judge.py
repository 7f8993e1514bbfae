"""The judge: from raw evidence, honest or not, to verdicts."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probing import compiled, eager, evidence_of, program, request

from synth_core.records import Graph, Stage, Verdict
from synth_core.validation.checks import CHECKS
from synth_core.validation.evidence import Evidence, EvidenceWriter, Observation
from synth_core.validation.failures import categorise
from synth_core.validation.inside.probe import run_eager
from synth_core.validation.judge.decide import judge_compiled, judge_eager

CONV = program(
    "return self.linear(torch.relu(self.conv(x)))",
    "self.conv = nn.Conv1d(3, 5, 3)\nself.linear = nn.Linear(8, 4)",
    "torch.randn(2, 3, 10)",
)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return evidence_of(run_eager, request(CONV))


def test_a_sound_program_passes_with_its_graph(evidence: Evidence) -> None:
    fields = judge_eager(request(CONV, requested=["ReLU", "Linear", "Conv1d"]), evidence)
    graph = Graph.model_validate(fields.pop("graph"))
    assert graph.operators == ("Conv1d", "ReLU", "Linear")
    verdict = Verdict.model_validate({"stage": Stage.VALIDATE_EAGER, **fields})
    assert verdict.passed
    json.dumps(fields)


@pytest.mark.parametrize("requested", [["ReLU", "ReLU"], ["Tanh"], ["NoSuchOperator"]])
def test_requested_operators_must_be_realised(evidence: Evidence, requested: list[str]) -> None:
    fields = judge_eager(request(CONV, requested=requested), evidence)
    assert (fields["category"], fields["check"]) == ("OPERATORS_MISSING", "operators")
    assert requested[-1] in fields["detail"]


@pytest.mark.slow
def test_compiled_agrees() -> None:
    fields = compiled(CONV)
    assert fields["passed"], fields
    assert fields["contract"] == {"one_graph": True}
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


@pytest.mark.slow
def test_a_program_bound_to_one_precision_is_warned_of() -> None:
    fields = compiled(
        program("return torch.tanh(x.float() @ self.w)", "self.w = nn.Parameter(torch.randn(6, 3))")
    )
    assert fields["passed"], fields
    assert fields["warnings"] == ("reference", "compiled_reference")
    assert fields["measured"]["no_reference"]


@pytest.mark.slow
def test_eager_that_loses_all_precision_is_caught_where_compiled_agrees_with_it() -> None:
    fields = compiled(program("return (x + 30000.0) - 30000.0"))
    assert (fields["category"], fields["check"]) == ("NUMERICAL_MISMATCH", "reference")


def test_a_lack_of_memory_for_the_reference_is_an_error_while_there_may_be_more() -> None:
    """Of a GPU that others use too, another try may have more."""
    forward = (
        "if x.dtype == torch.double:\n    raise torch.OutOfMemoryError('all taken')\nreturn x * self.a(x)"
    )
    source = program(forward, "self.a = nn.Linear(6, 6)")
    first = evidence_of(run_eager, request(source, brief=True, last=False))
    assert judge_compiled(request(source), first, first)["category"] == "OUT_OF_MEMORY"
    last = evidence_of(run_eager, request(source, brief=True, last=True))
    assert last.complete
    assert "all taken" in last.json("reference_error")["message"]


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


@pytest.mark.parametrize("missing", ["facts", "graph", "effects"])
def test_missing_records_pass_nothing(evidence: Evidence, missing: str) -> None:
    values = {name: value for name, value in evidence.values.items() if name != missing}
    assert judge_eager(request(CONV), replace(evidence, values=values))["category"] == "CRASH"


@pytest.mark.parametrize("gone", ["output.0", "again.0", "rebuilt.0"])
def test_missing_tensors_pass_nothing(evidence: Evidence, gone: str) -> None:
    tensors = {name: value for name, value in evidence.tensors.items() if name != gone}
    assert not judge_eager(request(CONV), replace(evidence, tensors=tensors))["passed"]


def test_one_bit_is_a_difference(evidence: Evidence) -> None:
    flipped = evidence.tensor("again.0").clone()
    flipped.view(torch.int32)[0, 0, 0] ^= 1
    fields = judge_eager(request(CONV), replace(evidence, tensors=evidence.tensors | {"again.0": flipped}))
    assert fields["category"] == "NONDETERMINISTIC"


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: [node | {"operator": "../../x"} for node in graph],
        lambda graph: graph * 5000,
        lambda graph: [node | {"arguments": "x" * 100_000} for node in graph],
        lambda graph: [node | {"name": "\ud800"} for node in graph],
        lambda graph: [node | {"surplus": 1} for node in graph],
    ],
)
def test_forged_graphs_pass_nothing(evidence: Evidence, change: Any) -> None:
    values = evidence.values | {"graph": change(evidence.json("graph"))}
    fields = judge_eager(request(CONV), replace(evidence, values=values))
    assert fields["category"] == "CRASH"
    Verdict.model_validate(
        {"stage": Stage.VALIDATE_EAGER, **{k: v for k, v in fields.items() if k != "graph"}}
    )


def test_what_a_program_says_becomes_one_printable_line() -> None:
    fields = eager(program("raise RuntimeError(chr(27) + '[2J' + chr(10) + chr(0xD800) + 'text')"))
    assert fields["detail"].isprintable()
    assert "text" in fields["detail"]


def test_incomplete_evidence_passes_nothing(evidence: Evidence) -> None:
    fields = judge_eager(request(CONV), replace(evidence, complete=False))
    assert fields["category"] == "CRASH"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["facts", "graph", "effects", "error", "reference_error"]), JSON)
def test_any_value_in_any_record_gets_a_verdict(name: str, value: Any) -> None:
    honest = evidence_cache()
    fields = judge_eager(request(CONV), replace(honest, values=honest.values | {name: value}))
    assert isinstance(fields["passed"], bool)


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
    fields = judge_eager(request(CONV), Evidence.read(data, Observation(exit_code=0)))
    assert not fields["passed"]


_CACHE: list[Evidence] = []


def evidence_cache() -> Evidence:
    if not _CACHE:
        _CACHE.append(evidence_of(run_eager, request(CONV)))
    return _CACHE[0]


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
        (["Unsupported", "TorchDynamoException"], "call to print", "compiles", "GRAPH_BREAK"),
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
