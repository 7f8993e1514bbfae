"""The static gate: rejects a program by its text, before the program runs. Imports no torch.

It is early and cheap, and its reasons are good statistics. It is not the security boundary, because the text
of a Python program does not show all that it does. The boundary is the sandbox (sandbox/), which also holds
when the gate is switched off.

    SYNTAX_ERROR        empty, not text, over 1 MB, unparsable, nested beyond reason
    DISALLOWED_IMPORT   a module, builtin, private attribute or function that reaches out of tensor code
    CONTRACT_VIOLATION  not one nn.Module class with forward, get_inputs and get_init_inputs beside it
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from synth_core.program import syntax
from synth_core.program.renaming import derives_from_module, program_class
from synth_core.records import Category


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAX_BYTES = 1_000_000
# CPython's parser gives up at 200, and people write fewer than ten. Our recursions are safe at this depth.
MAX_BRACKETS = 100

TENSOR_MODULES = frozenset(
    {
        "torch",
        "torch.nn",
        "torch.nn.functional",
        "torch.nn.init",
        "torch.nn.modules",
        "torch.nn.parameter",
        "torch.nn.utils",
        "torch.nn.utils.rnn",
        "torch.nn.utils.parametrizations",
        "torch.linalg",
        "torch.fft",
        "torch.special",
        "math",
        "numpy",
        "numpy.linalg",
        "numpy.random",
        "einops",
    }
)
PLAIN_MODULES = _words(
    """
    __future__ abc collections collections.abc copy dataclasses enum functools itertools random typing
    warnings
    """
)
ALLOWED_MODULES = TENSOR_MODULES | PLAIN_MODULES

# No chain on a tensor module may end in one of these names. They are modules in its namespace, and functions
# that read files, run code or change the interpreter. Taken from torch 2.13 and numpy 2 together.
_REACHES_OUT = _words(
    """
    accelerator amp ao autograd backends builtins classes compile compiler contextlib cpp cpu ctypes
    ctypeslib cuda dataclasses distributed distributions dtypes export f2py from_file frombuffer
    fromfile func functional_call functools futures fx genfromtxt glob hub import_ir_module importlib
    inspect intrinsic io jit lib library load loadtxt masked memmap monitor mps mtia multiprocessing
    nested open ops optim os overrides package parallel parametrize platform profiler quantization
    quasirandom read_vitals rec return_types save savetxt savez savez_compressed serialization
    set_default_device set_default_dtype set_default_tensor_type set_num_interop_threads set_num_threads
    set_printoptions signal sparse_support stateless storage subprocess sys testing textwrap threading
    torch_version types utils vitals_enabled warnings windows xpu
    """
)
_METHODS = frozenset(
    {"format", "format_map", "from_file", "fromfile", "storage", "tofile", "untyped_storage"}
)
INTROSPECTION = _words(
    """
    ag_await ag_code ag_frame cr_await cr_code cr_frame cr_origin f_back f_builtins f_code f_globals f_lasti
    f_lineno f_locals f_trace gi_code gi_frame gi_yieldfrom tb_frame tb_lasti tb_next
    """
)
"""Attributes that lead to the frames of the code that runs a program."""
_BUILTINS = _words(
    """
    __build_class__ __builtins__ __import__ __loader__ __spec__ breakpoint compile copyright credits
    delattr dir eval exec exit globals help input license locals memoryview open quit vars
    """
)
_ON_SELF_ONLY = frozenset({"getattr", "setattr", "hasattr"})
_EVALUATORS = frozenset({"ForwardRef", "evaluate_forward_ref", "get_type_hints", "make_dataclass"})

Failure = dict[str, Any]


def check_source(source: str) -> Failure | None:
    """The `category`, `detail` and `check` of the first fault in the text, or None.

    Every text gets an answer, in time linear in its length.
    """
    parsed = parse(source)
    if isinstance(parsed, str):
        return _failure(Category.SYNTAX_ERROR, parsed)
    if reason := _structure(parsed):
        return _failure(Category.CONTRACT_VIOLATION, reason)
    disallowed = next(_disallowed(parsed), None)
    return _failure(Category.DISALLOWED_IMPORT, disallowed) if disallowed else None


def parse(source: str) -> ast.Module | str:
    """The syntax tree, or one line that says why there is none."""
    if len(source) > MAX_BYTES:
        return f"the text is {len(source):,} characters long; at most {MAX_BYTES:,} are read"
    if not source.strip():
        return "the text is empty"
    if "\0" in source:
        return "the text holds NUL bytes: it is binary, not Python"
    if _bracket_depth(source) > MAX_BRACKETS:
        return f"brackets are nested more than {MAX_BRACKETS} deep"
    try:
        return syntax.parse(source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}" if error.lineno else str(error.msg)
    except (RecursionError, MemoryError):
        return "expressions are nested too deeply to parse"
    except ValueError:  # lone surrogates
        return "the text is not valid UTF-8"


def function(body: list[ast.stmt], name: str) -> ast.FunctionDef | None:
    """The last plain function with this name directly in `body`: the one that Python would call."""
    return next(
        (node for node in reversed(body) if isinstance(node, ast.FunctionDef) and node.name == name), None
    )


def _failure(category: Category, detail: str) -> Failure:
    return {"category": category, "detail": detail, "check": "static"}


def _bracket_depth(source: str) -> int:
    """Deepest nesting of brackets, counted in the raw text. Brackets in strings and comments count too."""
    depth = deepest = 0
    for character in source:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == "\n" and depth > MAX_BRACKETS:
            break
    return deepest


def _structure(tree: ast.Module) -> str:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    top = program_class(tree)
    if not classes or top is None:
        return "no class at module level; write one nn.Module class"
    if len(classes) > 1:
        names = ", ".join(node.name for node in classes)
        return f"{len(classes)} classes ({names}); write exactly one"
    if not derives_from_module(top):
        return f"class {top.name} does not derive from nn.Module"
    if function(top.body, "forward") is None:
        return f"class {top.name} has no forward method"
    for name in ("get_inputs", "get_init_inputs"):
        if function(tree.body, name) is None:
            return f"no function {name}() at module level"
    return ""


def _disallowed(tree: ast.Module) -> Iterator[str]:
    """Each use of something outside tensor code, as one line."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node, aliases)
    for node in tree.body:  # F = torch.nn.functional
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            chain = _chain(node.value, aliases)
            if chain in ALLOWED_MODULES:
                aliases[node.targets[0].id] = chain
    inner: set[int] = set()  # parts of a longer chain or of such an assignment, which are decided already
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            inner.add(id(node.value))
            yield from _attribute(node)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            inner.update(id(n) for n in ast.walk(node.value) if node.targets[0].id in aliases)
        if isinstance(node, ast.Call) and _reaches_own(node):
            inner.add(id(node.func))
        if isinstance(node, ast.Name) and node.id in _BUILTINS | _ON_SELF_ONLY and id(node) not in inner:
            yield f"line {node.lineno}: uses {node.id}"
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
            chain = _chain(node, aliases)
            if chain and isinstance(node.ctx, ast.Load):
                yield from (f"line {node.lineno}: {reason}" for reason in _reach(chain))
            elif chain and isinstance(node, ast.Attribute):
                yield f"line {node.lineno}: changes {chain}"


def _imports(node: ast.Import | ast.ImportFrom, aliases: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for name in node.names:
            root = name.name.partition(".")[0]
            aliases[name.asname or root] = name.name if name.asname else root
            if name.name not in ALLOWED_MODULES:
                yield f"line {node.lineno}: imports {name.name}"
        return
    module = node.module or ""
    if node.level or module not in ALLOWED_MODULES:
        yield f"line {node.lineno}: imports from {'.' * node.level}{module}"
        return
    for name in node.names:
        full = f"{module}.{name.name}"
        aliases[name.asname or name.name] = full
        if name.name == "*" and module not in ("math", "typing"):
            yield f"line {node.lineno}: imports every name of {module}"
        elif full not in ALLOWED_MODULES:
            yield from (f"line {node.lineno}: {reason}" for reason in _reach(full))


def _attribute(node: ast.Attribute) -> Iterator[str]:
    """Private names lead into the interpreter. `self._x` does not."""
    own = isinstance(node.value, ast.Name) and node.value.id == "self" and not node.attr.startswith("__")
    if node.attr.startswith("_") and node.attr not in ("__init__", "__name__") and not own:
        yield f"line {node.lineno}: reads the private attribute {node.attr}"
    elif node.attr in _METHODS | INTROSPECTION:
        yield f"line {node.lineno}: uses .{node.attr}"


def _reaches_own(node: ast.Call) -> bool:
    """Whether a call like `getattr(self, "conv1")` gets an attribute of the program by a public name."""
    if not (isinstance(node.func, ast.Name) and node.func.id in _ON_SELF_ONLY and len(node.args) >= 2):
        return False
    target, name = node.args[0], node.args[1]
    if isinstance(name, ast.JoinedStr) and name.values:
        name = name.values[0]
    public = isinstance(name, ast.Constant) and isinstance(name.value, str) and not name.value.startswith("_")
    return public and isinstance(target, ast.Name) and target.id == "self"


def _chain(node: ast.AST, aliases: dict[str, str]) -> str:
    """`torch.nn.ReLU` for a node that means it, under any alias; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in aliases:
        return ""
    return ".".join([aliases[node.id], *reversed(parts)])


def _reach(chain: str) -> Iterator[str]:
    """What is wrong with a dotted name that starts at an imported module."""
    parts = chain.split(".")
    path = parts[0]
    for part in parts[1:]:
        longer = f"{path}.{part}"
        if longer not in ALLOWED_MODULES:
            if _reaches_out(path, part):
                yield f"{longer} is outside what a program may use"
            return  # a function, class or constant; further names are its own attributes
        path = longer
    if chain in ALLOWED_MODULES:
        yield f"uses the module {chain} as a value"


def _reaches_out(module: str, name: str) -> bool:
    if module in TENSOR_MODULES:
        return name in _REACHES_OUT or name in PLAIN_MODULES
    return name in _EVALUATORS or isinstance(getattr(importlib.import_module(module), name, None), ModuleType)
