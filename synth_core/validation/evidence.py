"""Raw evidence: what a child wrote, and what its supervisor saw of it.

A child runs foreign code, so it never reports a verdict. `EvidenceWriter` appends tensors (raw bytes) and
JSON values to an evidence file. When the child is dead, a prover reads the file into an `Evidence`. Nothing
is unpickled. If something does not parse, the evidence is incomplete, and the program fails.

The file is a sequence of records. A record has a length (little-endian u64), a JSON header of that length,
zero bytes up to a multiple of 64, and the payload, padded in the same way. The last record is the end mark.
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
"""Most bytes of one JSON value. Parsed, it takes about thirty times its length."""
DRAWS: Final = 2
"""Number of further inputs that a program must run on; they are drawn after the capture."""
SAMPLE: Final = 2**18
"""On a GPU: most elements of an output that are compared, and most values of an input that draws use. Copies
of full-size tensors would fill the memory."""

_DTYPES: Final = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
        torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Observation:
    """What the supervisor saw of a process; nothing in it comes from the process."""

    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    out_of_memory: bool = False
    violation: str = ""
    """Why the sandbox killed it; empty if it did not."""
    seconds: float = 0.0
    peak_mb: float = 0.0
    """Largest resident memory that was sampled, in MiB, without what it had at its start."""

    @property
    def finished(self) -> bool:
        """It ended by itself, without an error."""
        return self.exit_code == 0 and not (self.timed_out or self.out_of_memory or self.violation)


class EvidenceWriter:
    """Appends records to a binary stream. It runs in the untrusted process."""

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
        """Mark the evidence complete. Only inside/run.py calls this, at the end of a file."""
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
    """What a dead child left. Trust only `observed`."""

    observed: Observation
    complete: bool = False
    """The end mark is there, every record parsed, and the process ended without an error."""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, data: bytearray | memoryview, observed: Observation) -> Evidence:
        """Parse an evidence file; never raises. `data` must be writable, and nobody may change it."""
        tensors: dict[str, torch.Tensor] = {}
        values: dict[str, Any] = {}
        try:
            ended = _parse(memoryview(data), tensors, values)
        except (ValueError, TypeError, KeyError, RecursionError, RuntimeError, OverflowError, AttributeError):
            ended = False
        return cls(observed, ended and observed.finished, tensors, values)

    def tensor(self, name: str) -> torch.Tensor:
        """Raises KeyError if the process recorded no such tensor."""
        return self.tensors[name]

    def json(self, name: str) -> Any:
        """Raises KeyError if the process recorded no such value."""
        return self.values[name]


def _parse(data: memoryview, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> bool:
    """Read records up to the end mark; True if it is there and nothing follows it."""
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
    """SHA-256 of the bytes of a tensor, in contiguous order."""
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def sampled(tensor: torch.Tensor, most: int | None) -> torch.Tensor:
    """A copy with at most `most` elements.

    Takes every second element of the longest axis until few enough are left, so all axes are kept. If any
    element of the tensor is not finite, the first element of the sample becomes NaN.
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
