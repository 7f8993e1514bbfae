"""Inside a confined process: Inductor's C++ is sent out to be compiled, and called through ctypes.

The process may neither exec a compiler nor write a library. It hands its C++ sources to the supervisor, which
compiles those of several processes as one unit (units.py) and answers with a path. Building is put off until
the first kernel is called, so that one message carries all kernels of a program.
"""

from __future__ import annotations

import ctypes
import json
import os
from typing import Any, Final

import torch
from torch._inductor.async_compile import AsyncCompile

from synth_core.validation.sandbox.process import CHANNEL

_SCALARS: Final = {
    "float": ctypes.c_float, "double": ctypes.c_double, "bool": ctypes.c_bool, "long": ctypes.c_long,
    "int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "int": ctypes.c_int,
}  # fmt: skip


class CompileFailed(RuntimeError):
    """The C++ compiler refused what Inductor wrote; the text is the compiler's."""


class Kernel:
    """One C++ function, found in its library when it is first called."""

    def __init__(self, argument_types: list[str], source: str) -> None:
        self._converters = [_converter(kind) for kind in argument_types]
        self._function: Any = None
        _waiting.append((self, source))

    def __call__(self, *arguments: Any) -> None:
        if self._function is None:
            _build_waiting()
        self._function(*[convert(a) for convert, a in zip(self._converters, arguments, strict=True)])
        if self._error[0] != b"\0":
            raise RuntimeError(self._error.value[1:].decode(errors="replace"))

    def bind(self, library: ctypes.CDLL, name: str) -> None:
        self._function = getattr(library, name)
        self._function.restype = None
        self._error = (ctypes.c_char * 256).in_dll(library, "unit_error")


_waiting: list[tuple[Kernel, str]] = []


def defer_compilation() -> None:
    """From now on, whatever Inductor compiles in this process and its forks goes through the channel."""
    AsyncCompile.cpp_pybinding = lambda self, argtypes, source_code: Kernel(  # type: ignore[method-assign]
        argtypes, source_code
    )


def _converter(kind: str) -> Any:
    if kind.endswith("*"):
        return lambda tensor: ctypes.c_void_p(tensor.data_ptr())
    scalar: Any = _SCALARS[kind.removeprefix("const ").strip()]
    return lambda value: scalar(value.item() if isinstance(value, torch.Tensor) else value)


def _build_waiting() -> None:
    kernels = [kernel for kernel, _ in _waiting]
    answer = _ask({"kernels": [source for _, source in _waiting]})
    _waiting.clear()
    if "error" in answer:
        raise CompileFailed(answer["error"])
    for kernel, (library, name) in zip(kernels, answer["functions"], strict=True):
        kernel.bind(ctypes.CDLL(library), name)


def _ask(message: dict[str, Any]) -> dict[str, Any]:
    """One line of JSON out, one line of JSON back."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(CHANNEL, data) :]
    answer = b""
    while not answer.endswith(b"\n"):
        part = os.read(CHANNEL, 65536)
        if not part:
            raise CompileFailed("the supervisor is gone")
        answer += part
    result: dict[str, Any] = json.loads(answer)
    return result
