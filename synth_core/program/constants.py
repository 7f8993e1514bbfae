"""Reads and replaces the sizes in a program's text: integers assigned to names at module level."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from synth_core.program import syntax


def constants_of(source: str) -> dict[str, int]:
    """The integers that a program assigns to names at module level: name -> value, in the order of the text.

    Raises `SyntaxError` if the text is not Python.
    """
    found = {}
    for node in syntax.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            target, value = node.targets[0], node.value.value
            if isinstance(target, ast.Name) and type(value) is int:
                found[target.id] = value
    return found


def with_constants(source: str, constants: Mapping[str, int]) -> str:
    """Replace the values of these constants in the text. Names that the text does not assign are ignored."""
    for name, value in constants.items():
        source = re.sub(rf"^{name} = \d+$", f"{name} = {value}", source, flags=re.MULTILINE)
    return source
