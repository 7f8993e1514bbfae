"""Python's own parser, used by one thread at a time.

Before Python 3.13 all threads share the parser's recursion counter. If garbage collection switches threads
while two of them build trees, Python raises "SystemError: AST constructor recursion depth mismatch". The
warning filters are shared by all threads as well.
"""

from __future__ import annotations

import ast
import io
import threading
import warnings

_LOCK = threading.Lock()


def parse(source: str, filename: str = "<program>") -> ast.Module:
    """The syntax tree. Raises SyntaxError, ValueError, RecursionError or MemoryError, as `ast.parse` does."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # our user did not write the program and cannot fix it
        return ast.parse(source, filename)


def lines(source: str) -> list[str]:
    """The lines as `lineno` counts them, with line ends. `str.splitlines` would also split at form feeds."""
    return list(io.StringIO(source, newline=""))
