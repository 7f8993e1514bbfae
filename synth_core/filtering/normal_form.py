"""Two normal forms of a program's text, for comparison. Both come from the syntax tree alone."""

from __future__ import annotations

import ast

from synth_core.program import syntax
from synth_core.program.renaming import program_class

_SIZE = "_"  # replaces every number, and in `__init__` every plain name: both are used for sizes
_TORCH_MODULES = frozenset({"torch", "nn", "F"})
_BUILTINS = frozenset({"len", "range", "int", "float", "tuple", "list", "zip", "enumerate", "super", "self"})


def plain_form(source: str) -> str:
    """The text without comments, docstrings and layout. Raises `SyntaxError` if the source does not parse."""
    tree = syntax.parse(source)
    for node in ast.walk(tree):
        _drop_docstring(node)
    return ast.unparse(tree)


def bare_form(source: str) -> str:
    """The program class alone, without names, sizes and the order of declarations.

    Names become v0, v1, … by first use in `forward`. Numbers become `_`. Annotations and docstrings are
    removed. The statements of `__init__` are sorted. What remains is which torch functions are applied to
    which values, in which order. Empty if there is no class. Raises `SyntaxError` if the source does not
    parse.
    """
    program = program_class(syntax.parse(source))
    if program is None:
        return ""
    methods = [item for item in program.body if isinstance(item, ast.FunctionDef)]
    methods.sort(key=lambda method: (method.name != "forward", method.name == "__init__", method.name))
    numbers: dict[str, str] = {}
    lines = []
    for method in methods:
        _drop_docstring(method)
        in_init = method.name == "__init__"
        blank = _Blank(numbers, sizes_only=in_init)
        statements = [ast.unparse(blank.visit(node)) for node in method.body if not _calls_super(node)]
        lines += ["def", *(sorted(statements) if in_init else statements)]
    return "\n".join(lines)


class _Blank(ast.NodeTransformer):
    """Renames the names of one method and replaces its sizes. All methods of a class share `numbers`."""

    def __init__(self, numbers: dict[str, str], *, sizes_only: bool) -> None:
        self._numbers = numbers
        self._sizes_only = sizes_only

    def _numbered(self, name: str) -> str:
        return self._numbers.setdefault(name, f"v{len(self._numbers)}")

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return ast.Name(self._numbered(f"self.{node.attr}"), node.ctx)
        if _is_torch_name(node):
            return ast.Name(node.attr, node.ctx)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in _BUILTINS:
            return node
        return ast.Name(_SIZE if self._sizes_only else self._numbered(node.id), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool | str | None):
            return node
        return ast.Name(_SIZE, ast.Load())

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        """(3, 3) and 3 are the same size to torch."""
        self.generic_visit(node)
        return ast.Name(_SIZE, node.ctx) if node.elts and all(_is_size(item) for item in node.elts) else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return node.operand if isinstance(node.op, ast.USub) and _is_size(node.operand) else node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return self.generic_visit(ast.Assign([node.target], node.value, lineno=node.lineno))


def _is_size(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == _SIZE


def _is_torch_name(node: ast.Attribute) -> bool:
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in _TORCH_MODULES


def _calls_super(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith("super(")


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
        node.body = node.body[1:] or [ast.Pass()]
