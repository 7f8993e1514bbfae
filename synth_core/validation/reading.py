"""What the engine learns from a program's text. Runs in a child with limits (synth_core/limited.py).

The engine and the supervisors hand the text on. They never parse it.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from typing import Any

from synth_core.program.renaming import program_class, rename_class
from synth_core.records import Category, sha256
from synth_core.validation import contract, gate

_COOKIE = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.ASCII | re.MULTILINE)
_UTF8 = frozenset({"utf-8", "utf8", "utf-8-sig"})


def read(source: str, name: str, gated: bool) -> dict[str, Any]:
    """What the text of a program tells: `failure`, `rules`, `literal_tuple`, `numbers`, `text` and `seed`.

    failure: the fields of a verdict, or None. text: a hash that does not depend on the name of the class.
    gated: ask the static gate too.
    """
    failure = _unlike_its_file(source) or (gate.check_source(source) if gated else None)
    if failure:
        return {"failure": failure}
    tree = gate.parse(source)
    parsed = None if isinstance(tree, str) else contract.Source(tree, name)
    return {
        "failure": None,
        "rules": contract.check_contract(parsed) if parsed else {},
        "literal_tuple": bool(parsed and _returns_tuple(parsed)),
        "numbers": sorted(_floats(parsed.tree)) if parsed else [],
        "text": (unnamed := sha256(_unnamed(source))),
        "seed": int(unnamed[:8], 16),
    }


def class_name(source: str) -> str:
    """The name of the program's class; "" if there is none."""
    tree = gate.parse(source)
    program = None if isinstance(tree, str) else program_class(tree)
    return program.name if program else ""


def rename(source: str, name: str) -> str:
    """The text with another name for its class."""
    return rename_class(source, name)


def _returns_tuple(source: contract.Source) -> bool:
    """Whether a `return` of `forward` is a tuple that is written out."""
    returns = source.returns(source.forward) if source.forward else []
    return any(isinstance(node.value, ast.Tuple) for node in returns)


def _floats(tree: ast.Module) -> set[float]:
    """The floats in get_init_inputs, and in the constants of the module that it reads."""
    constants = {
        target.id: statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    function = gate.function(tree.body, "get_init_inputs")
    roots: list[ast.AST] = [function] if function else []
    found: set[float] = set()
    while roots:
        for node in ast.walk(roots.pop()):
            if isinstance(node, ast.Constant) and isinstance(node.value, float) and math.isfinite(node.value):
                found |= {node.value, -node.value}
            elif isinstance(node, ast.Name) and node.id in constants:
                roots.append(constants.pop(node.id))
    return found


def _unnamed(source: str) -> str:
    """The text with a fixed name for its class. The seed must not depend on that name.

    The class gets its final name when the operators are known. The renamed text must run on the same inputs.
    """
    try:
        return rename_class(source, "SynthModel")
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # not a program; its verdict will say so
        return source


def _unlike_its_file(source: str) -> dict[str, Any] | None:
    """A failure if Python would read another text from a file than this one; else None.

    A `coding:` comment decides how Python reads a file. Under UTF-7 a comment may be code. We write files as
    UTF-8.
    """
    try:
        first = source.encode().split(b"\n", 2)[:2]
        declared = tokenize.detect_encoding(io.BytesIO(b"\n".join(first)).readline)[0]
    except UnicodeEncodeError:
        return _refused("the text is not valid UTF-8")
    except SyntaxError as error:
        return _refused(str(error.msg))
    named = {
        match[1].lower().replace("_", "-") for match in _COOKIE.finditer("\n".join(source.splitlines()[:3]))
    }
    if others := sorted({declared.lower(), *named} - _UTF8):
        return _refused(f"the text declares the encoding {others[0]}; programs are UTF-8")
    return None


def _refused(detail: str) -> dict[str, Any]:
    return {"category": Category.SYNTAX_ERROR, "detail": detail, "check": "builds"}
