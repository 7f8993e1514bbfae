"""Renames the class of a program and all references to it. All other bytes of the text stay the same."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator
from itertools import accumulate

from synth_core.program import syntax

_IDENTIFIER_AFTER_CLASS = re.compile(rb"class(?:\s|\\)+")
_IDENTIFIER = re.compile(rb"[\w\x80-\xff]+")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def rename_class(source: str, new_name: str) -> str:
    """Rename the program class, and every reference to it, to `new_name`. Returns the new source.

    A local variable or a string with the same spelling is not changed.
    Raises `SyntaxError` if the source does not parse, and `ValueError` if it has no class.
    """
    tree = syntax.parse(source)
    program = program_class(tree)
    if program is None:
        raise ValueError("the source has no class to rename")
    data = source.encode()
    starts = [0, *accumulate(len(line.encode()) for line in syntax.lines(source))]
    at_class = starts[program.lineno - 1] + program.col_offset
    keyword = _IDENTIFIER_AFTER_CLASS.match(data, at_class)
    assert keyword is not None
    places = {keyword.end()}
    places |= {starts[name.lineno - 1] + name.col_offset for name in _references(tree, program.name)}
    parts, at = [], 0
    for place in sorted(places):
        written = _IDENTIFIER.match(data, place)
        if written is None or _normal(written[0]) != program.name:
            # Python 3.11 misplaces names inside f-strings. Losing the layout is better than losing a name.
            return _rename_by_unparse(tree, program, new_name)
        parts += [data[at:place], new_name.encode()]
        at = written.end()
    return b"".join([*parts, data[at:]]).decode()


def _normal(identifier: bytes) -> str:
    """The name as the syntax tree has it: Python takes a letter's other Unicode forms for the letter."""
    return unicodedata.normalize("NFKC", identifier.decode(errors="replace"))


def program_class(tree: ast.Module) -> ast.ClassDef | None:
    """The program class of a text: the last top-level class that derives from `Module` and has a `forward`.

    If there is none: the last top-level class, so that validation can say what it lacks; or None.
    """
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    modules = [node for node in classes if _is_module(node)]
    return modules[-1] if modules else classes[-1] if classes else None


def derives_from_module(node: ast.ClassDef) -> bool:
    """Whether the class has a base called `Module`, from any package."""
    return any(
        (isinstance(base, ast.Attribute) and base.attr == "Module")
        or (isinstance(base, ast.Name) and base.id == "Module")
        for base in node.bases
    )


def _is_module(node: ast.ClassDef) -> bool:
    has_forward = any(isinstance(item, ast.FunctionDef) and item.name == "forward" for item in node.body)
    return has_forward and derives_from_module(node)


def _references(tree: ast.Module, name: str) -> Iterator[ast.Name]:
    """Every use of the module-level `name`. Functions that bind the same name locally are skipped."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, ast.Name) and child.id == name:
                yield child
            elif not (isinstance(child, _FUNCTIONS) and _binds(child, name)):
                waiting.append(child)


def _binds(function: ast.AST, name: str) -> bool:
    """Whether `name` is a parameter or a local variable of the function."""
    own: list[ast.AST] = [function]
    stored = False
    while own:
        for child in ast.iter_child_nodes(own.pop()):
            if isinstance(child, ast.Global) and name in child.names:
                return False
            is_parameter = isinstance(child, ast.arg) and child.arg == name
            is_stored = isinstance(child, ast.Name) and child.id == name and isinstance(child.ctx, ast.Store)
            stored = stored or is_parameter or is_stored
            if not isinstance(child, (*_FUNCTIONS, ast.ClassDef)):
                own.append(child)
    return stored


def _rename_by_unparse(tree: ast.Module, program: ast.ClassDef, new_name: str) -> str:
    for name in _references(tree, program.name):
        name.id = new_name
    program.name = new_name
    return ast.unparse(tree) + "\n"
