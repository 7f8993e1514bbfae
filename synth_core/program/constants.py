"""The sizes of a program as text: whole numbers assigned to a name at module level, read and replaced."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from synth_core.program import syntax


def constants_of(source: str) -> dict[str, int]:
    """Name -> value, in the order of the text; raises `SyntaxError` where it is no Python."""
    found = {}
    for node in syntax.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            target, value = node.targets[0], node.value.value
            if isinstance(target, ast.Name) and type(value) is int:
                found[target.id] = value
    return found


def with_constants(source: str, constants: Mapping[str, int]) -> str:
    """The same text with other values at those names; names that it does not assign are passed over."""
    for name, value in constants.items():
        source = re.sub(rf"^{name} = \d+$", f"{name} = {value}", source, flags=re.MULTILINE)
    return source
