"""Python's own parser, for one text at a time.

Before Python 3.13 the parser keeps its depth in one place for all threads: two that make trees at once, while
the collector lets one go on amid the other's, end in "SystemError: AST constructor recursion depth mismatch".
Silencing warnings is one setting for all threads, too.
"""

from __future__ import annotations

import ast
import io
import threading
import warnings

_LOCK = threading.Lock()


def parse(source: str, filename: str = "<program>") -> ast.Module:
    """The syntax tree; raises SyntaxError, ValueError, RecursionError and MemoryError, as `ast.parse`."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape is the program's business, not our user's
        return ast.parse(source, filename)


def lines(source: str) -> list[str]:
    """The lines that `lineno` counts, with their ends; for `str.splitlines` a form feed ends one, too."""
    return list(io.StringIO(source, newline=""))
