"""Evidence: what a child may say arrives as it was, and what it may not say makes all of it incomplete."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch

from synth_core.validation import evidence
from synth_core.validation.evidence import Evidence, EvidenceWriter, Observation, digest, sampled

GRID = torch.arange(12.0).reshape(3, 4)
TENSORS: dict[str, torch.Tensor] = {
    "float": GRID,
    "transposed": GRID.t(),
    "one element": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "bool": GRID > 4,
    "half": GRID.bfloat16(),
    "complex": torch.complex(GRID, -GRID).conj(),
    "sparse": torch.eye(3).to_sparse(),
    "not finite": torch.tensor([float("nan"), float("inf"), -0.0]),
}


def written(*calls: Callable[[EvidenceWriter], None], end: bool = True) -> bytearray:
    stream = io.BytesIO()
    writer = EvidenceWriter(stream)
    for call in calls:
        call(writer)
    if end:
        writer.end()
    return bytearray(stream.getvalue())


def read(data: bytearray, **observed: Any) -> Evidence:
    return Evidence.read(data, Observation(**{"exit_code": 0, **observed}))


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_arrives_as_it_was(name: str) -> None:
    tensor = TENSORS[name]
    found = read(written(lambda out: out.tensor("x", tensor)))
    assert found.complete
    plain = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    assert (found.tensor("x").dtype, found.tensor("x").shape) == (plain.dtype, plain.shape)
    torch.testing.assert_close(found.tensor("x"), plain.resolve_conj(), rtol=0, atol=0, equal_nan=True)
    assert digest(found.tensor("x")) == digest(plain)


def test_a_dtype_that_evidence_cannot_carry_is_refused() -> None:
    with pytest.raises(TypeError, match="float8"):
        written(lambda out: out.tensor("x", GRID.to(torch.float8_e4m3fn)))


def test_evidence_is_complete_only_with_its_end_and_nothing_behind_it() -> None:
    def say(out: EvidenceWriter) -> None:
        out.json("facts", {"a": 1})

    assert read(written(say)).complete
    assert not read(written(say, end=False)).complete
    assert not read(written(say) + bytes(64)).complete
    assert not read(bytearray()).complete
    for observed in (
        {"exit_code": 1},
        {"exit_code": None, "signal": 9},
        {"timed_out": True},
        {"violation": "x"},
    ):
        assert not read(written(say), **observed).complete


@pytest.mark.parametrize(
    "header",
    [
        b'{"name": "x", "kind": "tensor", "dtype": "float32", "shape": [2], "bytes": 4}',
        b'{"name": "x", "kind": "tensor", "dtype": "float32", "shape": [-1, -1], "bytes": 4}',
        b'{"name": "x", "kind": "tensor", "dtype": "float32", "shape": [true], "bytes": 4}',
        b'{"name": "x", "kind": "tensor", "dtype": "object", "shape": [1], "bytes": 4}',
        b'{"name": "x", "kind": "json", "bytes": 1000000}',
        b'{"name": "x", "kind": "json", "bytes": -4}',
        b'{"name": "x", "kind": "pickle", "bytes": 4}',
        b"[" * 5000,
    ],
)
def test_a_record_that_does_not_fit_is_not_read(header: bytes) -> None:
    prefix = len(header).to_bytes(8, "little") + header
    record = prefix + bytes(-len(prefix) % 64) + b"1234" + bytes(60)
    found = read(bytearray(record) + written())
    assert not found.complete
    assert "x" not in found.tensors | found.values


def test_a_value_is_parsed_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed, JSON takes many times its length."""
    data = written(lambda out: out.json("x", "a" * 1000))
    assert read(data).json("x") == "a" * 1000
    monkeypatch.setattr(evidence, "MAX_JSON", 1000)
    assert not read(data).complete


def test_a_sample_keeps_the_axes_and_shows_what_is_not_finite() -> None:
    large = torch.arange(4096.0).reshape(64, 64)
    sample = sampled(large, 1000)
    assert sample.dim() == 2
    assert 0 < sample.numel() <= 1000
    assert set(sample.flatten().tolist()) <= set(large.flatten().tolist())
    large[63, 63] = float("inf")
    assert not sampled(large, 1000).isfinite().all()
    assert torch.equal(sampled(GRID, None), GRID)
    assert sampled(GRID, None).data_ptr() != GRID.data_ptr()
