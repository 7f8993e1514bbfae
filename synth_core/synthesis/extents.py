"""The size of each axis as text with the program's own names, such as `seq_len` or `height // 2`.

The text is derived from the lines that made the value, back to the inputs. Equal sizes are not enough: a
score matrix has `seq_len` columns, even if some layer has the same width. A size that no name explains stays
a number, for example the side of an image after a convolution without padding.
"""

from __future__ import annotations

import math
import re

from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Line, Value

_CONCAT = re.compile(r"torch\.cat\(\[([^\[\]]*)\], dim=(-?\d+)\)")
_SIMPLE = re.compile(r"(?:(\d+) \* )?([a-z]\w*)(?: // (\d+))?")
_NAMED = re.compile(r"(?:\b\d+ \* )?\b[a-z]\w*\b(?: // \d+)?")
# Operations whose output sizes do not depend on the input's sizes.
_FIXED = re.compile(r"[Aa]daptive|unflatten|Unflatten|Fold|F\.fold|Fractional|\[:, -1\]")
LARGEST_RATIO = 16


def texts(d: Draft, value: Value) -> list[str]:
    """The text of each axis. It is stored in `d.sizes`, for inputs of the same shape."""
    if value.name not in d.sizes.axes:
        d.sizes.axes[value.name] = [_text(d, value, axis) for axis in range(len(value.shape))]
    return list(d.sizes.axes[value.name])


def channels(d: Draft, value: Value) -> str:
    """The text of the channel or feature axis."""
    return _text(d, value, value.axis % len(value.shape))


def _text(d: Draft, value: Value, axis: int) -> str:
    key = (value.name, axis)
    if key not in d.sizes.extents:
        given = next((item.axes[axis] for item in d.inputs if item.value is value), "")
        d.sizes.extents[key] = given or _derived(d, value, axis) or str(value.shape[axis])
    return d.sizes.extents[key]


def part(text: str, count: int) -> str:
    """Text of an extent divided by `count`: `d_model // 4`. `count` must divide it."""
    return _fraction(text, 1, count) or f"{operand(text)} // {count}"


def multiple(text: str, count: int) -> str:
    """Text of `count` times an extent: `2 * d_model`."""
    return _fraction(text, count, 1) or f"{count} * {operand(text)}"


def total(extents: list[str]) -> str:
    """Text of a sum of extents. Equal terms are combined: `3 * width`, not `2 * width + width`."""
    counts: dict[str, int] = {}
    for extent in extents:
        for term in [extent] if "(" in extent else extent.split(" + "):
            match = _SIMPLE.fullmatch(term)
            name, count = (match[2], int(match[1] or 1)) if match and not match[3] else (term, 1)
            if term.isdecimal():
                name, count = "", int(term)
            counts[name] = counts.get(name, 0) + count
    figure = counts.pop("", 0)
    terms = [f"{count} * {operand(name)}" if count > 1 else name for name, count in counts.items()]
    return " + ".join([*terms, str(figure)] if figure else terms)


def operand(text: str) -> str:
    """An extent as a factor of a product: a sum or a quotient gets parentheses."""
    return f"({text})" if " + " in text or " // " in text else text


def power(text: str) -> str:
    """Text of an extent to the power -0.5, with parentheses if needed."""
    return f"({text}) ** -0.5" if " " in text else f"{text} ** -0.5"


def _fraction(text: str, times: int, over: int) -> str:
    """`times / over` of a simple extent, reduced to lowest terms. Empty for an extent with several names."""
    match = _SIMPLE.fullmatch(text)
    if match is None:
        return str(int(text) * times // over) if text.isdecimal() else ""
    above, below = times * int(match[1] or 1), over * int(match[3] or 1)
    common = math.gcd(above, below)
    above, below = above // common, below // common
    name = str(match[2])
    front = f"{above} * {name}" if above > 1 else name
    return f"{front} // {below}" if below > 1 else front


def _derived(d: Draft, value: Value, axis: int) -> str:
    """The text of an axis, from the line that made the value. Empty if that line does not explain it."""
    line = next((line for line in reversed(d.lines) if value in line.outs), None)
    if line is None or value.shape[axis] == 1:
        return ""
    read = set(line.reads)
    reads = [other for other in d.values if other.name in read]
    reads.sort(key=lambda other: line.reads.index(other.name))
    return _axis(d, line, reads, value, axis)


def _axis(d: Draft, line: Line, reads: list[Value], value: Value, axis: int) -> str:
    """Apply the rules, the most certain first. Empty if no rule applies."""
    size = value.shape[axis]
    joined = _concatenated(d, line, reads, axis, len(value.shape))
    if joined:
        return joined
    made_by = _definitions(d, line)
    fixed = _FIXED.search(f"{line.text} {made_by}")
    if axis == value.axis % len(value.shape) and axis:
        front = "2 * " if "bidirectional" in made_by else ""
        named = [f"{front}{text}" for text in _NAMED.findall(made_by) if _has_size(d, f"{front}{text}", size)]
        if named:
            return named[-1]  # a layer's arguments name its input size before its output size
    for other in reads:
        if len(other.shape) > axis and other.shape[axis] == size and (axis < 2 or not fixed):
            return _text(d, other, axis)
    return "" if fixed else _inherited(d, reads, value, axis)


def _concatenated(d: Draft, line: Line, reads: list[Value], axis: int, rank: int) -> str:
    match = _CONCAT.fullmatch(line.text)
    if match is None or int(match.group(2)) % rank != axis:
        return ""
    by_name = {value.name: value for value in reads}
    parts = [by_name.get(name) for name in match.group(1).split(", ")]
    if None in parts:
        return ""
    sums = [_text(d, part, axis) for part in parts if part is not None]
    return multiple(sums[0], len(sums)) if len(set(sums)) == 1 else total(sums)


def _definitions(d: Draft, line: Line) -> str:
    """The text in __init__ of the layers and parameters that the line uses."""
    used = set(re.findall(r"\bm\d+_\b", line.text))
    return " ".join(attribute.text for attribute in d.attributes if attribute.name in used) if used else ""


def _has_size(d: Draft, text: str, size: int) -> bool:
    """Whether an expression with a named constant has this value."""
    name = re.search(r"[a-z]\w*", text)
    return name is not None and name.group() in d.sizes.constants and eval(text, d.env) == size


def _inherited(d: Draft, reads: list[Value], value: Value, axis: int) -> str:
    """An extent derived from a value that the line reads: flattened axes, another axis, or a multiple."""
    size = value.shape[axis]
    for other in (other for other in reads if axis and len(other.shape) > len(value.shape)):
        flat = _flattened(d, other, size)
        if flat:
            return flat
    for other in reads:
        if size in other.shape[1:]:
            return _text(d, other, other.shape.index(size, 1))
    wide = axis == value.axis % len(value.shape)
    for other in reads:
        place = other.axis % len(other.shape) if wide else axis
        if place < len(other.shape):
            ratio = _ratio(_text(d, other, place), other.shape[place], size)
            if ratio:
                return ratio
    return ""


def _flattened(d: Draft, other: Value, size: int) -> str:
    """The product of the last axes, whole or in patches: `(height // 4) * (width // 4)`."""
    for first, patch in ((1, 1), (2, 1), (2, 2), (2, 4)):
        sides = other.shape[first:]
        if all(side % patch == 0 for side in sides) and math.prod(side // patch for side in sides) == size:
            return " * ".join(operand(part(text, patch)) for text in texts(d, other)[first:])
    return ""


def _ratio(text: str, before: int, size: int) -> str:
    """The text of a size that is a multiple or a fraction of a named one: `2 * height`, `height // 2`."""
    if text.isdecimal() or before == 1:
        return ""
    if before % size == 0 and before // size <= LARGEST_RATIO:
        return part(text, before // size)
    if size % before == 0 and size // before <= LARGEST_RATIO:
        return multiple(text, size // before)
    return ""
