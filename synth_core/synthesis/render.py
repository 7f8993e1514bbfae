"""Writes the text of the file: it replaces placeholders by names, nests short steps and breaks long lines."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from synth_core.operators.operator import Kind
from synth_core.program.naming import program_name
from synth_core.synthesis.draft import PLACEHOLDER, Draft
from synth_core.synthesis.names import axes_of, dtype_of, name_attributes, name_operators, name_values
from synth_core.synthesis.parts import Line, Value

# Probabilities.
NESTED = 0.35  # a call is written inside the only call that reads it
RETURNED = 0.5  # the last step is written in the return statement
TYPED = 0.4  # a program has annotations
BY_KEYWORD = 0.2  # get_init_inputs names its arguments
COMMENTED = 0.4  # a line that changes the number of axes, or shares weights, has a comment
LONGEST = 100  # characters of a line
_OPENING = re.compile(r"\w\(|[\[{]")
TURNED = frozenset({"", "Flatten", "Unfold"})  # their transpose belongs to the next step and may be dropped

SUBJECTS = {Kind.VECTOR: "Vector", Kind.SEQUENCE: "Sequence", Kind.SIGNAL: "Signal",
            Kind.IMAGE: "Image", Kind.VOLUME: "Volume"}  # fmt: skip


def render(d: Draft, outputs: list[Value]) -> str:
    """The program's source. All constants are at module level, and reach the class through __init__."""
    lines = _nest(d, outputs)
    names = name_values(d.rng, d.inputs, lines, outputs) | name_attributes(d.attributes)
    arguments = _arguments(d)
    typed = d.rng.random() < TYPED

    def named(text: str) -> str:
        return PLACEHOLDER.sub(lambda match: names[match.group()], text)

    forward = _forward(d, lines, outputs, named)
    init = [f"self.{names[a.name]} = {a.text}" for a in d.attributes]
    if d.dtype and init:
        init.append(f"self.to({d.dtype})")
    given = [named(item.value.name) for item in d.inputs]
    tensor, result = (": torch.Tensor", _result_type(outputs)) if typed else ("", "")
    hint = {name: f": {type(d.sizes.constants[name]).__name__}" if typed else "" for name in arguments}
    heading = "".join(f", {name}{hint[name]}" for name in arguments)
    parts = [*_imports(init + forward), "", ""]
    operators = name_operators(d)
    parts += [f"class {program_name(operators)}(nn.Module):", *_docstring(d, operators, outputs, names), ""]
    if init:
        parts += [_wrap(f"    def __init__(self{heading}){' -> None' if typed else ''}:")]
        parts += ["        super().__init__()", *(_wrap(f"        {row}") for row in init), ""]
    parts += [_wrap(f"    def forward(self, {', '.join(name + tensor for name in given)}){result}:")]
    parts += [_wrap(f"        {row}") for row in forward]
    return "\n".join([*parts, "", "", *_footer(d, arguments), ""])


def _footer(d: Draft, arguments: list[str]) -> list[str]:
    """The lines of the constants, get_inputs and get_init_inputs."""
    factories = "\n".join(item.factory for item in d.inputs)
    used = [name for name in d.sizes.constants if name in arguments or re.search(rf"\b{name}\b", factories)]
    plain = f"    return [[{', '.join(arguments)}], {{}}]"
    pairs = ", ".join(f'"{name}": {name}' for name in arguments)
    keyed = f"    return [[], {{{pairs}}}]"
    return [
        *(f"{name} = {d.sizes.constants[name]!r}" for name in used),
        *("", "", "def get_inputs():"),
        _wrap(f"    return [{', '.join(item.factory for item in d.inputs)}]"),
        *("", "", "def get_init_inputs():"),
        _wrap(keyed if arguments and d.rng.random() < BY_KEYWORD else plain),
    ]


def _forward(d: Draft, lines: list[Line], outputs: list[Value], named: Callable[[str], str]) -> list[str]:
    rows = []
    repeated = next((line for line in lines if line.again), None)
    for line in lines[:-1]:
        text = named(line.statement)
        rows += text.split("\n")
        says = "" if line.block else "shared weights" if line is repeated else _new_axes(d, line)
        if says and len(text) < 70 and d.rng.random() < COMMENTED:
            comment = f"  # {says}"
            rows[-1] += comment if len(text + comment) < LONGEST - 8 else ""
    last = lines[-1]
    alone = len(outputs) == 1 and not last.block and last.targets == outputs[0].name
    if alone and d.rng.random() < RETURNED:
        return [*rows, f"return {named(last.text)}"]
    return [*rows, *named(last.statement).split("\n"), f"return {named(', '.join(map(str, outputs)))}"]


def _new_axes(d: Draft, line: Line) -> str:
    """The shape of the line's result, if its number of axes differs from that of its operand. Else empty."""
    by_name = {value.name: value for value in d.values}
    reshapes = len(line.outs) == 1 and len(by_name[line.reads[0]].shape) != len(line.outs[0].shape)
    return axes_of(d, line.outs[0]) if reshapes else ""


def _nest(d: Draft, outputs: list[Value]) -> list[Line]:
    """Move some calls into the call on the next line, if nothing else reads their result."""
    keep = {value.name for value in outputs}
    uses = Counter(name for line in d.lines for name in re.findall(r"\bv\d+_\b", line.text))
    lines: list[Line] = []
    for line in d.lines:
        nested = _nested(lines[-1], line, uses) if lines and lines[-1].targets not in keep else None
        back = nested and f"{lines[-1].targets}.transpose(1, 2)" in line.text
        # Two transposes in a row cancel out, so these lines are always nested.
        certain = back and lines[-1].operator in TURNED and lines[-1].text.endswith(".transpose(1, 2)")
        if nested and len(nested.text) < LONGEST - 12 and (certain or d.rng.random() < NESTED):
            lines[-1] = nested
        else:
            lines.append(line)
    return lines


def _nested(before: Line, line: Line, uses: Counter[str]) -> Line | None:
    """`line` with the call of the line before in it. None if that is not possible, or if others read it."""
    value = before.targets
    if before.block or line.block or uses[value] != 1 or not _is_call(before.text):
        return None
    if not re.search(rf"\b{value}\b", line.text):
        return None
    text = line.text.replace(value, before.text)
    there_and_back = ".transpose(1, 2).transpose(1, 2)"
    return replace(line, text=text.replace(there_and_back, "") if before.operator in TURNED else text)


def _is_call(text: str) -> bool:
    """Whether the text is a call or a chain of method calls, which never needs parentheses."""
    depth = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if depth == 0 and character == " ":
            return False
    return text.endswith(")")


def _arguments(d: Draft) -> list[str]:
    """The constants that __init__ needs, in the order in which they got their names."""
    text = "\n".join(attribute.text for attribute in d.attributes)
    return [name for name in d.sizes.constants if re.search(rf"\b{name}\b(?!\s*=[^=])", text)]


def _imports(rows: list[str]) -> list[str]:
    text = "\n".join(rows)
    imports = ["import math", ""] if "math." in text else []
    imports += ["import torch", "import torch.nn as nn"]
    return [*imports, "import torch.nn.functional as F"] if re.search(r"\bF\.", text) else imports


def _result_type(outputs: list[Value]) -> str:
    if len(outputs) == 1:
        return " -> torch.Tensor"
    return f" -> tuple[{', '.join(['torch.Tensor'] * len(outputs))}]"


def _docstring(d: Draft, operators: list[str], outputs: list[Value], names: dict[str, str]) -> list[str]:
    floating = [item.value for item in d.inputs if item.value.tensor.is_floating_point()]
    kinds = dict.fromkeys(SUBJECTS[value.kind] for value in floating) or ["Lookup"]
    subject = " and ".join(kinds).capitalize()
    listed = " and ".join(filter(None, (", ".join(operators[:-1]), operators[-1])))
    steps = " -> ".join(operators) if d.chain else listed
    summary = d.rng.choice((f"{subject} block of {listed}.", f"{steps}."))
    summary_rows = textwrap.wrap(f'"""{summary}', LONGEST - 8, break_on_hyphens=False)
    given = [item.value for item in d.inputs]
    shapes = [f"{names[value.name]}: {axes_of(d, value)}{dtype_of(value)}" for value in given]
    returned = ", ".join(axes_of(d, value) + dtype_of(value) for value in outputs)
    return [f"    {row}".rstrip() for row in (*summary_rows, "", *shapes, f"returns {returned}", '"""')]


def _wrap(row: str) -> str:
    """Break a row that is too long at the commas of its longest brackets, and recursively within them."""
    if len(row) <= LONGEST:
        return row
    pad = row[: len(row) - len(row.lstrip())]
    # Only brackets of calls and lists: a trailing comma in grouping parentheses would make a tuple.
    spans: list[tuple[int, list[int], int]] = []
    while opening := _OPENING.search(row, spans[-1][-1] if spans else 0):
        spans.append((opening.end(), *_commas(row, opening.end())))
    if not spans:
        return row
    start, commas, end = max(spans, key=lambda span: span[2] - span[0])
    bounds = [start - 1, *commas, end]
    items = [row[a + 1 : b].strip() for a, b in pairwise(bounds)]
    broken = [_wrap(f"{pad}    {item},") for item in items]
    return "\n".join([row[:start], *broken, pad + row[end:]])


def _commas(row: str, start: int) -> tuple[list[int], int]:
    """Positions of the commas in the bracket that opens just before `start`, and of its end."""
    commas, depth, quoted = [], 0, False
    for i in range(start, len(row)):
        character = row[i]
        quoted ^= character == '"'
        if quoted:
            continue
        if character == "," and depth == 0:
            commas.append(i)
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return commas, i
    raise AssertionError(f"brackets do not match: {row}")
