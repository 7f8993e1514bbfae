"""Runs Inductor on a graph: keeps its wrapper in Python, and the C++ of its kernels to be built later."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch._functorch.config
import torch._inductor.config
from torch import fx
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codecache import PyCodeCache
from torch._inductor.compile_fx import compile_fx

from synth_core.validation.prover import lowering

_SCALARS: Final = {
    "float": ctypes.c_float, "double": ctypes.c_double, "bool": ctypes.c_bool, "long": ctypes.c_long,
    "int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "int": ctypes.c_int,
}  # fmt: skip


class Kernel:
    """One C++ function of a program. It can be called once it is bound."""

    def __init__(self, argument_types: Sequence[str], source: str) -> None:
        self.source = source
        self._converters = [_converter(kind) for kind in argument_types]
        self._function: Any = None

    def __call__(self, *arguments: Any) -> None:
        self._function(*[convert(a) for convert, a in zip(self._converters, arguments, strict=True)])
        if self._error[0] != b"\0":
            raise RuntimeError(self._error.value[1:].decode(errors="replace"))

    def bind(self, library: ctypes.CDLL, name: str) -> None:
        self._function = getattr(library, name)
        self._function.restype = None
        self._error = (ctypes.c_char * 256).in_dll(library, "unit_error")


@dataclass
class Generated:
    """What Inductor wrote for one graph. Bind its kernels before you call `forward`."""

    forward: Any = None
    kernels: list[Kernel] = field(default_factory=list)


_open: list[Kernel] = []
_short_way = True


def configure() -> None:
    """Once per process: no caches on disk, one thread, and C++ that is kept and not compiled at once."""
    torch._inductor.config.fx_graph_cache = False
    torch._functorch.config.enable_autograd_cache = False
    torch._inductor.config.compile_threads = 1
    torch._inductor.config.cpp_cache_precompile_headers = False
    torch._inductor.config.cpp.simdlen = 1  # no vectors: a fifth less CPU (measured)

    def kept(self: AsyncCompile, argtypes: list[str], source_code: str) -> Kernel:
        kernel = Kernel(argtypes, source_code)
        _open.append(kernel)
        return kernel

    AsyncCompile.cpp_pybinding = kept  # type: ignore[method-assign]


def warm_up(build: Callable[[Sequence[Kernel]], None]) -> None:
    """Compile one small graph. The first graph takes seconds, for tables that every later graph uses.

    If the short way does not fit this release of torch, every graph takes the long way.
    """
    global _short_way
    given = [torch.randn(2, 3, 8, 8), torch.randn(8, 3, 3, 3), torch.rand(8)]
    try:
        generated = generate(fx.symbolic_trace(_sample), given)
    except (AttributeError, ImportError, TypeError):
        _short_way = False
        generated = generate(fx.symbolic_trace(_sample), given)
    build(generated.kernels)
    with torch.no_grad():
        generated.forward(*given)
    forget()


def forget() -> None:
    """Drop what Inductor keeps of the graphs so far."""
    PyCodeCache.cache_clear()


def _sample(x: torch.Tensor, kernel: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor]:
    """Uses convolution, normalisation, attention, reduction and pointwise code of Inductor."""
    x = torch.relu(torch.nn.functional.conv2d(x, kernel, padding=1))
    x = torch.nn.functional.batch_norm(x, scale, scale, scale, scale)
    x = torch.nn.functional.max_pool2d(x, 2).flatten(2).transpose(1, 2)
    x = torch.nn.functional.scaled_dot_product_attention(x, x, x)
    return (torch.softmax(x.mean(1), -1),)


def generate(graph: fx.GraphModule, arguments: Sequence[torch.Tensor]) -> Generated:
    """What Inductor writes for the graph. Raises what Inductor raises."""
    generated = Generated()
    _open.clear()
    # With Inductor's own generator, a program that draws random numbers would never agree with eager.
    with torch.no_grad(), torch._inductor.config.patch(fallback_random=True):
        short = lowering.lowered(graph, arguments) if _short_way else None
        generated.forward = short or compile_fx(graph, list(arguments))
    generated.kernels = list(_open)
    _open.clear()
    return generated


def _converter(kind: str) -> Any:
    if kind.endswith("*"):
        return lambda tensor: ctypes.c_void_p(tensor.data_ptr())
    scalar: Any = _SCALARS[kind.removeprefix("const ").strip()]
    return lambda value: scalar(value.item() if isinstance(value, torch.Tensor) else value)
