"""Raw evidence: all that a sandboxed process may say, and what its supervisor saw of it.

Nothing inside a program's own process can be trusted, so that process never reports a verdict. It appends
tensors (raw bytes) and JSON values to a stream, an evidence file, through `EvidenceWriter`. Once it is dead a
prover, another process, reads the stream into an `Evidence`. Nothing is unpickled, and what does not parse
makes the evidence incomplete, which is a failure.

The stream is a sequence of records: a little-endian u64 length, that many bytes of JSON header, zero
bytes up to a multiple of 64, and the payload, padded likewise. The last record is the end mark.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import torch

ALIGNMENT: Final = 64
MAX_HEADER: Final = 64 * 1024
MAX_RECORDS: Final = 20_000
MAX_JSON: Final = 2**24
"""Bytes of one value: parsed, JSON takes some thirty times its length."""
DRAWS: Final = 2
"""Further inputs that a program has to run on, drawn after its graph was captured."""
SAMPLE: Final = 2**18
"""On a GPU: elements of an output that are compared, and values of an input to draw from. Full-size tensors
would fill the memory with copies."""

_DTYPES: Final = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
        torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Observation:
    """What the supervisor saw of a process, with no help from it."""

    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    out_of_memory: bool = False
    violation: str = ""
    """What the sandbox killed it for; empty where it did not."""
    seconds: float = 0.0
    peak_mb: float = 0.0
    """Most resident memory above what it was born with, as sampled, in MiB."""

    @property
    def finished(self) -> bool:
        """It ran to its own end."""
        return self.exit_code == 0 and not (self.timed_out or self.out_of_memory or self.violation)


class EvidenceWriter:
    """Appends records to a binary stream. Lives inside the untrusted process."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Record the bytes of a tensor of any device and layout.

        Raises TypeError for a dtype that evidence cannot carry (quantised, float8).
        """
        plain = tensor.detach()
        if plain.layout is not torch.strided:
            plain = plain.to_dense()
        plain = plain.to("cpu").resolve_conj().resolve_neg().contiguous()
        dtype = str(plain.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise TypeError(f"tensors of dtype {dtype} are not supported")
        size = plain.numel() * plain.element_size()
        payload = (ctypes.c_char * size).from_address(plain.data_ptr()) if size else b""
        self._record(
            {"name": name, "kind": "tensor", "dtype": dtype, "shape": list(plain.shape)}, memoryview(payload)
        )

    def json(self, name: str, value: Any) -> None:
        """Record a value that JSON can carry; NaN and infinities are allowed."""
        self._record({"name": name, "kind": "json"}, memoryview(json.dumps(value).encode()))

    def end(self) -> None:
        """Mark the evidence complete. Only the runner around the probe calls this."""
        self._record({"kind": "end"}, memoryview(b""))
        self._stream.flush()

    def _record(self, header: dict[str, Any], payload: memoryview) -> None:
        head = json.dumps(header | {"bytes": payload.nbytes}).encode()
        prefix = len(head).to_bytes(8, "little") + head
        self._stream.write(prefix + bytes(-len(prefix) % ALIGNMENT))
        self._stream.write(payload)
        self._stream.write(bytes(-payload.nbytes % ALIGNMENT))


@dataclass(frozen=True)
class Evidence:
    """What one dead process left behind. Trust nothing in it but `observed`."""

    observed: Observation
    complete: bool = False
    """The end mark is there, every record parsed, and the process ended by itself."""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, data: bytearray | memoryview, observed: Observation) -> Evidence:
        """Parse an evidence stream; never raises. `data` must be writable and stay unchanged."""
        tensors: dict[str, torch.Tensor] = {}
        values: dict[str, Any] = {}
        try:
            ended = _parse(memoryview(data), tensors, values)
        except (ValueError, TypeError, KeyError, RecursionError, RuntimeError, OverflowError, AttributeError):
            ended = False
        return cls(observed, ended and observed.finished, tensors, values)

    def tensor(self, name: str) -> torch.Tensor:
        """Raise KeyError where the process recorded no such tensor."""
        return self.tensors[name]

    def json(self, name: str) -> Any:
        """Raise KeyError where the process recorded no such value."""
        return self.values[name]


def _parse(data: memoryview, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> bool:
    """Read records until the end mark; True only if it is there and nothing follows it."""
    at = 0
    for _ in range(MAX_RECORDS):
        length = int.from_bytes(data[at : at + 8], "little")
        if not 0 < length <= MAX_HEADER:
            return False
        header = json.loads(bytes(data[at + 8 : at + 8 + length]))
        start = _aligned(at + 8 + length)
        size = header["bytes"]
        if type(size) is not int or not 0 <= size <= len(data) - start:
            return False
        payload = data[start : start + size]
        at = _aligned(start + size)
        match header["kind"]:
            case "tensor":
                tensors[str(header["name"])] = _tensor(header, payload)
            case "json" if size <= MAX_JSON:
                values[str(header["name"])] = json.loads(bytes(payload))
            case "end":
                return at == len(data)
            case _:
                return False
    return False


def _tensor(header: dict[str, Any], payload: memoryview) -> torch.Tensor:
    dtype, shape = _DTYPES[header["dtype"]], header["shape"]
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("shape")
    if math.prod(shape) * dtype.itemsize != len(payload):
        raise ValueError("size")
    if not len(payload):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(payload, dtype=dtype).reshape(shape)


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes, in the order of a contiguous one."""
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def sampled(tensor: torch.Tensor, most: int | None) -> torch.Tensor:
    """A copy, of at most `most` elements: of the longest axis every second one, until they are that few.

    The sample keeps the axes. A value that is not finite anywhere shows in it.
    """
    if most is None or tensor.numel() <= most:
        return tensor.clone()
    sample = tensor
    while sample.numel() > most:
        axis = max(range(sample.dim()), key=lambda d: sample.shape[d])
        sample = sample[(slice(None),) * axis + (slice(None, None, 2),)]
    sample = sample.clone()
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        sample[(0,) * sample.dim()] = float("nan")
    return sample


def _aligned(offset: int) -> int:
    return offset + -offset % ALIGNMENT
