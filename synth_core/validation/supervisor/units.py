"""C++ of several programs compiled as one unit: the compiler's start, not the kernels, is what costs.

A unit is a way from one program into another's process, since all of them load one library. Loading runs
nothing but static constructors, and a process calls none but its own functions. So a source shares a
unit only where it is provably one plain function: no directives beyond known pragmas, no assembler, no
attributes, no declaration outside the body, no macro that is not known (`why_not_plain`). Everything else,
and every unit that fails, is compiled program by program. The compiler runs confined, too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch._inductor import cpp_builder, cpu_vec_isa

from synth_core.errors import EnvironmentFault
from synth_core.validation.sandbox import toolchain


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_INCLUDE: Final = re.compile(r'\s*#include\s+[<"][\w/.+-]+[>"][ \t]*\n')
_SIGNATURE: Final = re.compile(r'\s*extern "C"\s+void\s+kernel\s*(\([^(){};#"]*\))\s*(\{.*\})\s*', re.DOTALL)
_PRAGMA: Final = re.compile(
    r"^[ \t]*#pragma (?:GCC ivdep|GCC unroll \d+|unroll|omp (?:parallel|for|simd|single|barrier)\b"
    r"[\w ():,+*|&^]*)$",
    re.MULTILINE,
)
_STRING: Final = re.compile(r'(?<![\w"])"[^"\\\n]*"(?![\w"])')
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_FORBIDDEN_MARKS: Final = ("#", "\\", "'", '"', "//", "/*", "??", "<:", "<%", "%:", ":>", "%>")
_ATTRIBUTE: Final = re.compile(r"\[\s*\[")
_FORBIDDEN_WORDS: Final = _words(
    "asm extern template namespace friend using typedef struct class union enum static thread_local operator"
    " export module import requires concept goto constinit consteval inline virtual explicit"
)
_KNOWN_MACROS: Final = _words(
    "C10_LIKELY C10_UNLIKELY AOTI_TORCH_CHECK TORCH_CHECK INFINITY NAN INT_MIN INT_MAX INT64_MAX INT64_MIN"
)
_MACRO: Final = re.compile(r"_*[A-Z][A-Z0-9_]{2,}|Py\w*|\w*(?:BEGIN|END|begin|end)_\w*")
_PRELUDE: Final = """
extern "C" { char unit_error[256]; }
static void unit_failed(const char* what) {
    std::size_t i = 0;
    for (; what[i] && i < sizeof(unit_error) - 2; ++i) unit_error[i + 1] = what[i];
    unit_error[i + 1] = 0;
    unit_error[0] = '!';
}
"""


def why_not_plain(source: str) -> str:
    """Why this C++ source may not share a unit; empty where it may."""
    if not source.isascii() or any(ord(c) < 32 and c not in "\n\t" for c in source):
        return "it holds characters that are not plain ASCII"
    match = _SIGNATURE.fullmatch(_without_include(source))
    if not match:
        return 'it is not one extern "C" function'
    text = _STRING.sub(" ", _PRAGMA.sub(" ", match[1] + match[2]))
    text = text.replace(".template ", ".")  # a call of a member template, not a declaration
    for mark in _FORBIDDEN_MARKS:
        if mark in text:
            return f"it holds {mark}"
    if _ATTRIBUTE.search(text):
        return "it holds an attribute"
    for word in _WORD.findall(text):
        reserved = (word.startswith("__") or re.match("_[A-Z]", word)) and word != "__at_align__"
        if word in _FORBIDDEN_WORDS or reserved:
            return f"it holds {word}"
        if _MACRO.fullmatch(word) and word not in _KNOWN_MACROS:
            return f"it holds the macro {word}"
    return "" if _one_block(text[text.index("{") :]) else "its braces do not enclose one body"


def _one_block(text: str) -> bool:
    """The first brace closes at the very end, so nothing stands outside the body."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return not text[at + 1 :].strip()
    return False


def _without_include(source: str) -> str:
    """Without the one include that Inductor begins with; the precompiled header stands for it."""
    match = _INCLUDE.match(source)
    return source[match.end() :] if match else source


def shared_source(kernels: list[str], names: list[str]) -> str:
    """One translation unit of plain kernels under new names. What a kernel throws lands in `unit_error`."""
    parts = [_PRELUDE]
    for source, name in zip(kernels, names, strict=True):
        match = _SIGNATURE.fullmatch(_without_include(source))
        assert match, "only plain kernels share a unit"
        parts.append(_guarded(f'extern "C" void {name}{match[1]}', match[2]))
    return "\n".join(parts)


def lone_source(kernel: str, name: str) -> str:
    """The same for one kernel that need not be plain."""
    match = _SIGNATURE.fullmatch(_without_include(kernel))
    if match:
        return _PRELUDE + _guarded(f'extern "C" void {name}{match[1]}', match[2])
    return _PRELUDE + re.sub(r"\bkernel\s*\(", f"{name}(", _without_include(kernel))


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
