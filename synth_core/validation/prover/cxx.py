"""Compiles the C++ of several programs as one library: to start the compiler costs more than a kernel does.

Inductor wrote the kernels, of graphs from a closed vocabulary. So they can share a library safely.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch._inductor import cpp_builder, cpu_vec_isa

from synth_core.errors import EnvironmentFault
from synth_core.validation.prover.inductor import Kernel

_LIMITED: Final = 'ulimit -t 60 -v 4194304; exec "$0" "$@"'
"""Limits of the compiler: 60 CPU seconds for one unit (8 programs need 1 or 2) and 4 GiB of memory."""

_INCLUDE: Final = re.compile(r'^\s*#include\s+[<"][^\n]*\n', re.MULTILINE)
_SIGNATURE: Final = re.compile(r'extern "C"\s+void\s+kernel\s*(\([^(){};]*\))\s*(\{.*\})\s*', re.DOTALL)
_PRELUDE: Final = """
extern "C" { char unit_error[256]; }
static void unit_failed(const char* what) {
    std::size_t i = 0;
    for (; what[i] && i < sizeof(unit_error) - 2; ++i) unit_error[i + 1] = what[i];
    unit_error[i + 1] = 0;
    unit_error[0] = '!';
}
"""


class CompileFailed(RuntimeError):
    """The C++ compiler refused what Inductor wrote. The text is that of the compiler."""


@dataclass(frozen=True)
class Compiler:
    """The C++ compiler with Inductor's flags, but with -O1 and no debug information.

    The compiled code runs once, so optimising costs more than it saves. The numbers agree within the
    tolerance. header: the file for `-include`; its precompiled form is in the same folder.
    """

    command: tuple[str, ...]
    header: str

    def build(self, kernels: Sequence[Kernel]) -> None:
        """Compile the kernels as one library and bind them to it. Raises CompileFailed."""
        functions: dict[str, str] = {}
        for kernel in kernels:
            functions.setdefault(kernel.source, f"kernel_{len(functions)}")
        if not functions:
            return
        with tempfile.TemporaryDirectory(prefix="unit-") as folder:
            source, library = f"{folder}/unit.cpp", f"{folder}/unit.so"
            Path(source).write_text(unit(functions))
            command = [*self.command, "-include", self.header, source, "-o", library]
            built = subprocess.run(
                ["/bin/sh", "-c", _LIMITED, *command], stderr=subprocess.PIPE, text=True, errors="replace"
            )
            if built.returncode:
                raise CompileFailed(_complaint(built.returncode, built.stderr))
            loaded = ctypes.CDLL(library)
        for kernel in kernels:
            kernel.bind(loaded, functions[kernel.source])


def build(compiler: Compiler, programs: Sequence[Sequence[Kernel]]) -> list[str]:
    """Compile the kernels of several programs. For each program: "", or the message of the compiler.

    If the common unit fails, each program is compiled alone.
    """
    try:
        compiler.build([kernel for kernels in programs for kernel in kernels])
    except CompileFailed as error:
        if len(programs) == 1:
            return [str(error)]
        return [build(compiler, [kernels])[0] for kernels in programs]
    return [""] * len(programs)


def unit(functions: dict[str, str]) -> str:
    """One translation unit with all kernels, renamed. An exception of a kernel goes to `unit_error`."""
    parts = [_PRELUDE]
    for source, name in functions.items():
        body = _INCLUDE.sub("", source)
        match = _SIGNATURE.search(body)
        if match and not body[match.end() :].strip():
            guarded = (
                f'extern "C" void {name}{match[1]} try {match[2]}'
                " catch (std::exception const& e) { unit_failed(e.what()); }"
                ' catch (...) { unit_failed("a C++ exception"); }'
            )
            body = body[: match.start()] + guarded
        else:
            body = re.sub(r"\bkernel\s*\(", f"{name}(", body)
        parts.append(f"namespace in_{name} {{\n{body}\n}}")
    return "\n".join(parts)


def find_compiler(cache: str) -> Compiler:
    """Derive the command from Inductor's, and precompile Inductor's header once, in `cache`.

    Raises EnvironmentFault if there is no working C++ compiler.
    """
    flags = _inductor_flags()
    version = subprocess.run([flags[0], "--version"], capture_output=True, text=True, check=True).stdout
    prefix = _prefix_header()
    text = "\x1f".join([*flags, version, torch.__version__, prefix])
    folder = Path(cache) / hashlib.sha256(text.encode()).hexdigest()[:16]
    compiler = Compiler(tuple(flags), str(folder / "prefix.h"))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "prefix.h.gch").exists():
            _precompile(compiler, prefix)
    return compiler


def reveal_torch() -> None:
    """Let libraries that are loaded later find torch's symbols without being linked against torch.

    The linker takes half a second to read the symbols, and few kernels need one.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if library.exists():
        ctypes.CDLL(str(library), os.RTLD_GLOBAL | os.RTLD_NOLOAD | os.RTLD_NOW)


def _precompile(compiler: Compiler, prefix: str) -> None:
    Path(compiler.header).write_text(f'#include "{prefix}"\n')
    partial = f"{compiler.header}.part"
    command = [*compiler.command, "-x", "c++-header", compiler.header, "-o", partial]
    built = subprocess.run([a for a in command if a != "-shared"], capture_output=True, text=True)
    if built.returncode:
        raise EnvironmentFault(f"the C++ compiler cannot compile Inductor's header: {built.stderr[-500:]}")
    os.rename(partial, f"{compiler.header}.gch")


def _prefix_header() -> str:
    """The header that every kernel of Inductor includes. Its place depends on the version of torch."""
    root = Path(torch.__file__).parent
    for place in ("include/torch/csrc/inductor/cpp_prefix.h", "_inductor/codegen/cpp_prefix.h"):
        if (root / place).exists():
            return str(root / place)
    raise EnvironmentFault("this torch has no cpp_prefix.h; its version is not supported")


def _inductor_flags() -> list[str]:
    """The compiler and the flags of Inductor's command line, changed to cost less."""
    options = cpp_builder.CppTorchDeviceOptions(
        vec_isa=cpu_vec_isa.pick_vec_isa(), device_type="cpu", include_pytorch=False, shared=True
    )
    line = cpp_builder.CppBuilder(name="o", sources="i.cpp", BuildOption=options).get_command_line()
    words = iter(shlex.split(line))
    compiler, flags = next(words), []
    for word in words:
        if word == "-o":
            next(words)
        elif not word.startswith(("-l", "-L")) and word not in ("i.cpp", "-g1", "-Wall", "-pedantic"):
            flags.append("-O1" if word == "-O3" else word)
    return [shutil.which(compiler) or compiler, *flags]


def _complaint(status: int, text: str) -> str:
    if status < 0:
        return f"the C++ compiler was killed by signal {-status}"
    first = [line for line in text.splitlines() if "error" in line][:4]
    return "\n".join(first) or text[-1000:].strip() or "the C++ compiler failed without a word"
