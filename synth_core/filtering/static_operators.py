"""Reads the operators of a program from its syntax tree, without running it.

It needs no torch and works on any file, such as a benchmark's. It returns nothing instead of a guess: a loop
or a part that is not a layer of the catalog may hide operators. If a captured graph exists, use the graph.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from synth_core.operators.catalog import realised_operator
from synth_core.program import syntax
from synth_core.program.renaming import program_class

_MODULES = {"torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional"}
_HIDING = (ast.For, ast.While, ast.comprehension, ast.If)
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "Add",
    ast.Sub: "Subtract",
    ast.Mult: "Multiply",
    ast.Div: "Divide",
    ast.MatMult: "Matmul",
}


def static_operators(source: str) -> tuple[str, ...]:
    """Catalog names in the order in which `forward` evaluates them. Empty if that is not certain.

    Raises `SyntaxError` if the source does not parse.
    """
    program = program_class(syntax.parse(source))
    methods = (
        {item.name: item for item in program.body if isinstance(item, ast.FunctionDef)} if program else {}
    )
    forward, init = methods.get("forward"), methods.get("__init__")
    if forward is None or any(isinstance(node, _HIDING) for node in ast.walk(forward)):
        return ()
    parts = _declared(init) if init else {}
    if any(called not in parts for called in _own_calls(forward)):
        return ()
    return tuple(name for statement in forward.body for name in _evaluated(statement, parts))


def _declared(init: ast.FunctionDef) -> dict[str, tuple[str, ...]]:
    """Attribute -> the operators of its layer, such as `self.conv = nn.Conv2d(…)`.

    A Sequential gives its layers in order. Attributes with other values are left out.
    """
    parts = {}
    for node in ast.walk(init):
        match node:
            case ast.Assign(
                targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=ast.Call() as call
            ):
                layers = call.args if _dotted(call.func) == "torch.nn.Sequential" else [call]
                names = [
                    realised_operator(_dotted(x.func)) if isinstance(x, ast.Call) else None for x in layers
                ]
                if all(names):
                    parts[name] = tuple(name for name in names if name)
    return parts


def _own_calls(forward: ast.FunctionDef) -> set[str]:
    """Attributes of self that `forward` calls."""
    calls = [node.func for node in ast.walk(forward) if isinstance(node, ast.Call)]
    return {
        function.attr
        for function in calls
        if isinstance(function, ast.Attribute) and ast.unparse(function.value) == "self"
    }


def _evaluated(node: ast.AST, parts: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Operators in order of evaluation: the parts of an expression come before the expression."""
    for child in ast.iter_child_nodes(node):
        yield from _evaluated(child, parts)
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=attribute)):
            yield from parts.get(attribute, ())
        case ast.Call(func=function):
            dotted = _dotted(function) or (
                f"torch.Tensor.{function.attr}" if isinstance(function, ast.Attribute) else ""
            )
            if name := realised_operator(dotted):
                yield name
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _ARITHMETIC and _touches_values(node):
            yield _ARITHMETIC[type(op)]


def _dotted(node: ast.expr) -> str:
    """`nn.Conv2d` -> torch.nn.Conv2d. Empty for an expression that does not start with torch, nn or F."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in _MODULES:
        return ""
    return ".".join((_MODULES[node.id], *reversed(names)))


def _touches_values(node: ast.AST) -> bool:
    """Whether arithmetic may involve tensors. It does not if all parts are constants, as in `2 * 3`."""
    return not all(
        isinstance(part, ast.Constant | ast.BinOp | ast.operator | ast.expr_context)
        for part in ast.walk(node)
    )
