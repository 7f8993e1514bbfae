"""The text of the file: placeholders become names that a person would choose, short steps are nested."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from synth_core.naming import program_name
from synth_core.synthesis.draft import PLACEHOLDER, Draft, Line, Value
from synth_core.synthesis.proof import statement

NESTED = 0.35  # chance that a call is written inside the one call that reads it
LONGEST = 92
NAMED_BY_HINT = 0.35  # chance that a value takes the name of what it is rather than its predecessor's
PLAIN = ("x", "h", "out", "y", "z")
TAKEN = frozenset({"state", "memory_cell", "steps", "t", "self"})


def render(d: Draft, outputs: list[Value]) -> str:
    operators = [line.operator for line in d.lines if line.role == "operator" and line.operator]
    name = program_name(operators)
    lines = _nest(d, outputs)
    names = _name_values(d, lines, outputs) | _name_attributes(d)
    arguments = _arguments(d)

    def named(text: str) -> str:
        return PLACEHOLDER.sub(lambda match: names[match.group()], text)

    given = [named(item.value.name) for item in d.inputs]
    forward = [row for line in lines for row in named(statement(line)).split("\n")]
    result = ", ".join(named(value.name) for value in outputs)
    attributes = [f"self.{names[a.name]} = {a.text}" for a in d.attributes]
    parts = [
        _imports(forward + attributes),
        "",
        "",
        f"class {name}(nn.Module):",
        *_docstring(d, outputs, names),
        "",
    ]
    if attributes:
        signature = "".join(f", {argument}" for argument in arguments)
        parts += [f"    def __init__(self{signature}):", "        super().__init__()"]
        parts += [f"        {attribute}" for attribute in attributes]
        parts += [""]
    parts += [f"    def forward(self, {', '.join(given)}):"]
    parts += [f"        {row}" for row in forward]
    parts += [f"        return {result}", "", ""]
    parts += [
        f"{constant} = {value!r}" for constant, value in d.sizes.constants.items() if _used(d, constant)
    ]
    parts += ["", "", "def get_inputs():"]
    parts += [_list("    return [", [item.factory for item in d.inputs], "]")]
    parts += ["", "", "def get_init_inputs():"]
    parts += [f"    return [[{', '.join(arguments)}], {{}}]", ""]
    return "\n".join(parts)


def _nest(d: Draft, outputs: list[Value]) -> list[Line]:
    """Write some calls inside the single call, on the next line, that reads them."""
    keep = {value.name for value in outputs}
    uses = Counter(name for line in d.lines for name in re.findall(r"\bv\d+_\b", line.text))
    lines: list[Line] = []
    for line in d.lines:
        nested = _nested(lines[-1], line, uses) if lines and lines[-1].targets not in keep else None
        if nested and len(nested.text) < LONGEST and d.rng.random() < NESTED:
            lines[-1] = nested
        else:
            lines.append(line)
    return lines


def _nested(before: Line, line: Line, uses: Counter[str]) -> Line | None:
    """`line` with the call of the line before written into it, if nothing else reads that."""
    value = before.targets
    if before.block or line.block or uses[value] != 1 or not _is_call(before.text):
        return None
    if not re.search(rf"\b{value}\b", line.text):
        return None
    return replace(line, text=line.text.replace(value, before.text))


def _is_call(text: str) -> bool:
    """A call or a chain of methods, which needs no parentheses wherever it is put."""
    depth = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if depth == 0 and character == " ":
            return False
    return text.endswith(")")


def _name_values(d: Draft, lines: list[Line], outputs: list[Value]) -> dict[str, str]:
    end = len(lines)
    last_use = {value.name: end for value in outputs}
    for i, line in enumerate(lines):
        for name in line.reads:
            last_use[name] = max(last_use.get(name, 0), i)
    names: dict[str, str] = {}
    live: dict[str, str] = {}  # name in the text -> value that it stands for

    def free(wanted: str) -> str:
        name, figure = wanted, 2
        while name in live or name in TAKEN:
            name, figure = f"{wanted}{figure}", figure + 1
        return name

    def bind(value: Value, name: str) -> None:
        names[value.name] = name
        live[name] = value.name

    for item in d.inputs:
        bind(item.value, free(item.value.hint))
    for i, line in enumerate(lines):
        dying = [name for name in dict.fromkeys(line.reads) if last_use[name] == i]
        if not line.block:  # a block may read after it has bound
            for name in dying:
                del live[names[name]]
        for value in line.outs:
            if value.name not in last_use:
                bind(value, "_")
            elif value.hint != "h" and d.rng.random() < NAMED_BY_HINT:
                bind(value, free(value.hint))
            elif dying and names[dying[0]] not in live and not _is_input_name(d, dying[0]):
                bind(value, names[dying[0]])
            else:
                bind(value, free(next((name for name in PLAIN if name not in live), "h")))
        if line.block:
            for name in dying:
                live.pop(names[name], None)
    return names


def _is_input_name(d: Draft, name: str) -> bool:
    """Integer inputs and second operands keep their names to themselves."""
    return any(item.value.name == name and item.value.hint != "x" for item in d.inputs)


def _name_attributes(d: Draft) -> dict[str, str]:
    total = Counter(attribute.hint for attribute in d.attributes)
    seen: Counter[str] = Counter()
    names = {}
    for attribute in d.attributes:
        seen[attribute.hint] += 1
        figure = str(seen[attribute.hint]) if total[attribute.hint] > 1 else ""
        names[attribute.name] = attribute.hint + figure
    return names


def _arguments(d: Draft) -> list[str]:
    """The constants that __init__ needs, in the order in which they were named."""
    text = "\n".join(attribute.text for attribute in d.attributes)
    return [name for name in d.sizes.constants if re.search(rf"\b{name}\b(?!\s*=[^=])", text)]


def _used(d: Draft, constant: str) -> bool:
    factories = "\n".join(item.factory for item in d.inputs)
    return constant in _arguments(d) or re.search(rf"\b{constant}\b", factories) is not None


def _imports(rows: list[str]) -> str:
    text = "\n".join(rows)
    imports = ["import math", ""] if "math." in text else []
    imports += ["import torch", "import torch.nn as nn"]
    if re.search(r"\bF\.", text):
        imports.append("import torch.nn.functional as F")
    return "\n".join(imports)


def _docstring(d: Draft, outputs: list[Value], names: dict[str, str]) -> list[str]:
    operators = [line.operator for line in d.lines if line.role == "operator" and line.operator]
    shapes = [f"    {names[i.value.name]}: {_axes(d, i.value)}" for i in d.inputs]
    returned = ", ".join(_axes(d, value) for value in outputs)
    return [f'    """{" -> ".join(operators)}.', "", *shapes, f"    returns: {returned}", '    """']


def _axes(d: Draft, value: Value) -> str:
    sizes = d.sizes.copy()
    return f"({', '.join(sizes.texts_like(value, {}))})"


def _list(head: str, items: list[str], tail: str) -> str:
    line = head + ", ".join(items) + tail
    if len(line) <= 100:
        return line
    return "\n".join([head, *(f"        {item}," for item in items), f"    {tail}"])
