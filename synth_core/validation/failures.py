"""From an exception of a program to a check and a category."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from synth_core.records import Category
from synth_core.validation.checks import BY_NAME

_SHAPE_KINDS = frozenset({"RuntimeError", "ValueError", "IndexError", "AssertionError"})
_SHAPE_WORDS = re.compile(
    r"\b(shapes?|sizes?|dimensions?|dims?|channels|broadcast)\b|\d ?-?D\b", re.IGNORECASE
)
_NO_WHOLE_GRAPH = frozenset({"graph_break", "several_graphs", "dynamo", "data_dependent"})
"""Kinds of NotCapturable (graph/encode.py) that mean a graph break. The others are graphs that a record
cannot hold."""
_MEMORY_KINDS = frozenset({"MemoryError", "OutOfMemoryError"})
_MEMORY_WORDS = re.compile(
    r"can't allocate memory|not enough memory|out of memory|STATUS_ALLOC_FAILED", re.IGNORECASE
)  # the last is from cuBLAS and cuDNN
_DENIED = re.compile(r"^\[Errno (1|13|30)\]")  # EPERM, EACCES, EROFS: the sandbox refused it


def one_line(text: str) -> str:
    """The text in one line, printable signs only: a program may have chosen it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def categorise(error: Mapping[str, Any]) -> tuple[str, Category, str]:
    """Check, category and detail for an exception, as inside/run.py describes it."""
    kinds, message = [str(kind) for kind in error["kinds"]], str(error["message"])
    phase = str(error["phase"])
    where = f" at {error['where']}" if error.get("where") else ""
    if kinds[0] == "NotCapturable":
        category = Category.GRAPH_BREAK if _NO_WHOLE_GRAPH & set(kinds) else Category.CONTRACT_VIOLATION
        return "full_graph", category, f"{one_line(message)[:600]}{where}"
    check = phase if phase in BY_NAME else "runs"
    return check, _category(check, kinds, message), f"{kinds[0]}: {one_line(message)[:600]}{where}"


def _category(phase: str, kinds: Sequence[str], message: str) -> Category:
    if "BrokenContract" in kinds:
        return Category.CONTRACT_VIOLATION
    if "SyntaxError" in kinds:
        return Category.SYNTAX_ERROR
    if _MEMORY_KINDS & set(kinds) or _MEMORY_WORDS.search(message):
        return Category.OUT_OF_MEMORY
    if "PermissionError" in kinds or ("OSError" in kinds and _DENIED.match(message)):
        return Category.SANDBOX_VIOLATION
    if phase == "compiles":
        return Category.COMPILE_ERROR
    if phase == "runs" and _SHAPE_KINDS & set(kinds) and _SHAPE_WORDS.search(message):
        return Category.SHAPE_ERROR
    return Category.EXCEPTION
