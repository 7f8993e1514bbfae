"""Left sides of assignments to several names."""

from __future__ import annotations

from typing import Any


def pick(results: Any, targets: str) -> list[Any]:
    """The results at the positions of `{}` in a left side such as `{}, (_, {})`."""
    flat: list[Any] = []

    def walk(pattern: str, result: Any) -> None:
        pattern = pattern.strip()
        if pattern == "{}":
            flat.append(result)
        elif pattern != "_":
            parts = _split(pattern.strip("()") if pattern.startswith("(") else pattern)
            for part, item in zip(parts, result, strict=True):
                walk(part, item)

    walk(targets, results)
    return flat


def _split(pattern: str) -> list[str]:
    """Split at the commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(pattern):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(pattern[start:i])
            start = i + 1
    return [*parts, pattern[start:]]
