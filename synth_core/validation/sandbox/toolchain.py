"""Where the parts of the C and C++ compilers are, if they are not where the system has its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache

_PARTS = ("cc1plus", "collect2", "as", "ld")


@cache
def roots() -> tuple[str, ...]:
    """The folders of the compilers that torch would choose."""
    chosen = [os.environ.get("CXX") or "g++", os.environ.get("CC") or "gcc", "clang", "clang++"]
    found = [shutil.which(name) for name in chosen]
    return tuple(sorted({root for compiler in found if compiler for root in roots_of(compiler)}))


def roots_of(compiler: str) -> tuple[str, ...]:
    """Roots of a compiler outside the system folders (conda, /opt). It may be a wrapper."""
    asked = [[compiler, f"-print-prog-name={part}"] for part in _PARTS]
    answers = [subprocess.run(question, capture_output=True, text=True).stdout.strip() for question in asked]
    found = set()
    for path in (shutil.which(compiler), *map(shutil.which, answers)):
        if path:
            real = os.path.realpath(path)
            found.add(re.split(r"/lib(?:exec)?/gcc/|/bin/", real)[0])
    return tuple(sorted(root for root in found if root not in ("", "/usr")))
