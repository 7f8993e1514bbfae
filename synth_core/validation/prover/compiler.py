"""The C++ compiler as Inductor would call it, made cheaper, and several kernels as one text for it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch._inductor import cpp_builder, cpu_vec_isa

from synth_core.errors import EnvironmentFault
from synth_core.validation.sandbox import toolchain

_INCLUDE: Final = re.compile(r'\s*#include\s+[<"][\w/.+-]+[>"][ \t]*\n')
_SIGNATURE: Final = re.compile(r'\s*extern "C"\s+void\s+kernel\s*(\([^(){};#"]*\))\s*(\{.*\})\s*', re.DOTALL)
_PRELUDE: Final = """
extern "C" { char unit_error[256]; }
static void unit_failed(const char* what) {
    std::size_t i = 0;
    for (; what[i] && i < sizeof(unit_error) - 2; ++i) unit_error[i + 1] = what[i];
    unit_error[i + 1] = 0;
    unit_error[0] = '!';
}
"""


def unit(kernels: Sequence[str], names: Sequence[str]) -> str:
    """One translation unit of Inductor's kernels under new names. What one throws lands in `unit_error`.

    The include that each begins with goes: the precompiled header stands for it.
    """
    parts = [_PRELUDE]
    for source, name in zip(kernels, names, strict=True):
        include = _INCLUDE.match(source)
        text = source[include.end() :] if include else source
        plain = _SIGNATURE.fullmatch(text)
        if plain:
            parts.append(_guarded(f'extern "C" void {name}{plain[1]}', plain[2]))
        else:
            parts.append(f"namespace n_{name} {{" + re.sub(r"\bkernel\s*\(", f"{name}(", text) + "}")
    return "\n".join(parts)


def _guarded(head: str, body: str) -> str:
    return (
        f"{head} try {body} catch (std::exception const& e) {{ unit_failed(e.what()); }}"
        ' catch (...) { unit_failed("a C++ exception"); }'
    )


@dataclass(frozen=True)
class Compiler:
    """The C++ compiler with the flags that Inductor would give it, optimisation lowered to -O1.

    -O1, and no debug information: what is compiled runs once, and the numbers are the same to the tolerance.
    """

    command: tuple[str, ...]
    link: tuple[str, ...]
    header: str
    """What `-include` names; its precompiled form lies beside it."""
    toolchain: tuple[str, ...] = ()
    """Folders that hold the compiler's own parts, where they lie outside the system's."""

    def arguments(self, source: str, library: str) -> list[str]:
        return [*self.command, "-include", self.header, source, "-o", library, *self.link]

    @property
    def readable(self) -> tuple[str, ...]:
        """Folders that a confined compiler has to read."""
        return (os.path.dirname(self.header), *self.toolchain)


def find_compiler(cache: str) -> Compiler:
    """Derive the command from Inductor's own, and precompile its header under `cache` once.

    Raises EnvironmentFault where there is no working C++ compiler.
    """
    flags, link = _inductor_flags()
    version = subprocess.run([flags[0], "--version"], capture_output=True, text=True, check=True).stdout
    prefix = _prefix_header()
    text = "\x1f".join([*flags, version, torch.__version__, prefix])
    folder = Path(cache) / hashlib.sha256(text.encode()).hexdigest()[:16]
    compiler = Compiler(tuple(flags), tuple(link), str(folder / "prefix.h"), toolchain.roots_of(flags[0]))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "prefix.h.gch").exists():
            _precompile(compiler, prefix)
    return compiler


def _precompile(compiler: Compiler, prefix: str) -> None:
    Path(compiler.header).write_text(f'#include "{prefix}"\n')
    partial = f"{compiler.header}.part"
    command = [*compiler.command, "-x", "c++-header", compiler.header, "-o", partial]
    built = subprocess.run([a for a in command if a != "-shared"], capture_output=True, text=True)
    if built.returncode:
        raise EnvironmentFault(f"the C++ compiler cannot compile Inductor's header: {built.stderr[-500:]}")
    os.rename(partial, f"{compiler.header}.gch")


def _prefix_header() -> str:
    """The header that every kernel of Inductor includes; it moved between versions of torch."""
    root = Path(torch.__file__).parent
    for place in ("include/torch/csrc/inductor/cpp_prefix.h", "_inductor/codegen/cpp_prefix.h"):
        if (root / place).exists():
            return str(root / place)
    raise EnvironmentFault("this torch has no cpp_prefix.h; its version is not supported")


def _inductor_flags() -> tuple[list[str], list[str]]:
    """(compiler and its flags, link flags) of Inductor's own command line, made cheaper."""
    options = cpp_builder.CppTorchDeviceOptions(
        vec_isa=cpu_vec_isa.pick_vec_isa(), device_type="cpu", include_pytorch=False, shared=True
    )
    line = cpp_builder.CppBuilder(name="o", sources="i.cpp", BuildOption=options).get_command_line()
    words = iter(shlex.split(line))
    compiler, flags, link = next(words), [], []
    for word in words:
        if word == "-o":
            next(words)
        elif word.startswith(("-l", "-L")):
            if word not in ("-ltorch", "-ltorch_python"):
                link.append(word)
        elif word != "i.cpp" and word not in ("-g1", "-Wall", "-pedantic"):
            flags.append("-O1" if word == "-O3" else word)
    return [shutil.which(compiler) or compiler, *flags], link
