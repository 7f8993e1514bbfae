"""The C++ of several graphs as one library: the compiler's start is what costs, and the header that it loads.

Nothing hostile is in these sources: Inductor wrote them here, from graphs of known calls. A unit that does
not compile is built again program by program.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Sequence

from synth_core.validation.prover.compiler import Compiler, unit
from synth_core.validation.prover.inductor import Kernel

_serial = itertools.count()


class CppCompileError(RuntimeError):
    """The C++ compiler refused what Inductor wrote; the text is the compiler's."""


def bind(compiler: Compiler, programs: Sequence[Sequence[Kernel]]) -> list[CppCompileError | None]:
    """Compile and bind the kernels of each program; for each, the reason why that failed."""
    kernels = [kernel for program in programs for kernel in program]
    if not kernels:
        return [None for _ in programs]
    name = f"u{next(_serial)}"
    names = [f"{name}_{number}" for number in range(len(kernels))]
    try:
        library = _library(compiler, name, unit([k.source for k in kernels], names))
    except CppCompileError as error:
        if len(programs) == 1:
            return [error]
        return [problem for program in programs for problem in bind(compiler, [program])]
    for kernel, function in zip(kernels, names, strict=True):
        kernel.bind(library, function)
    return [None for _ in programs]


def _library(compiler: Compiler, name: str, source: str) -> ctypes.CDLL:
    with open(f"{name}.cpp", "w") as file:
        file.write(source)
    command = compiler.arguments(f"{name}.cpp", f"./{name}.so")
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        first = [line for line in done.stderr.splitlines() if "error" in line][:4]
        raise CppCompileError("\n".join(first) or done.stderr[-1000:])
    library = ctypes.CDLL(f"./{name}.so")
    for suffix in ("cpp", "so"):
        os.unlink(f"{name}.{suffix}")
    return library
