"""A program in memory: execute the text, build the class, draw the inputs, run from a known random state."""

from __future__ import annotations

import ast
import copy
import linecache
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import nn

from synth_core.graph.encode import tensors_in
from synth_core.program import syntax
from synth_core.validation.evidence import sampled

Request = dict[str, Any]

FILE = "<program>"


class BrokenContract(Exception):
    """The program lacks what every program must have. failures.py knows this class by its name."""


@dataclass(frozen=True)
class Loaded:
    """A program in memory.

    inputs: never used by a run; every run gets copies, because a program may write to its inputs.
    """

    module: nn.Module
    inputs: list[Any]
    init_inputs: Any
    declared_inputs: Any
    draw_inputs: Callable[[int], list[Any]]


def load(request: Request, sets_reversed: bool = False) -> Loaded:
    """Execute the text. Raises what the program raises, and `BrokenContract`.

    sets_reversed: sets that the text makes are iterated from the last item to the first.
    """
    source, seed = str(request["source"]), int(request["seed"])
    _quiet_torch()
    linecache.cache[FILE] = (len(source), None, syntax.lines(source), FILE)
    seed_everything(seed)
    namespace: dict[str, Any] = {"__name__": str(request["name"])}
    code = _compiled(source, sets_reversed)
    if sets_reversed:
        namespace |= {"set": ReversedSet, "frozenset": ReversedFrozenSet}
    exec(code, namespace)
    kind = _program_class(namespace)
    for function in ("get_inputs", "get_init_inputs"):
        if not callable(namespace.get(function)):
            raise BrokenContract(f"no function {function}() at module level")
    seed_everything(seed)
    init_inputs = namespace["get_init_inputs"]()
    args, kwargs = _as_call(init_inputs)
    seed_everything(seed)
    module = kind(*args, **kwargs).eval()

    def draw(seed: int) -> tuple[Any, list[Any]]:
        seed_everything(seed)
        declared = namespace["get_inputs"]()
        return declared, [declared] if isinstance(declared, torch.Tensor) else list(declared)

    declared, inputs = draw(seed)
    return Loaded(module, inputs, init_inputs, declared, lambda seed: draw(seed)[1])


def _quiet_torch() -> None:
    """Switch off the fast path of transformer layers. It has kernels of its own that no compiler sees, and it
    fails on transposed inputs."""
    torch.backends.mha.set_fastpath_enabled(False)


def _compiled(source: str, sets_reversed: bool) -> CodeType:
    try:
        if not sets_reversed:
            return compile(source, FILE, "exec")
        tree = ast.fix_missing_locations(_SetsByName().visit(ast.parse(source, FILE)))
        return compile(tree, FILE, "exec")
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes, surrogates, nesting
        raise SyntaxError(str(error) or "nested too deeply to compile") from error


class _Likeness(type):
    """Every set is an instance, as of the class that it replaces."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__mro__[1])


class ReversedSet(set[Any], metaclass=_Likeness):
    def __iter__(self) -> Iterator[Any]:
        return iter([*super().__iter__()][::-1])


class ReversedFrozenSet(frozenset[Any], metaclass=_Likeness):
    def __iter__(self) -> Iterator[Any]:
        return iter([*super().__iter__()][::-1])


class _SetsByName(ast.NodeTransformer):
    """Rewrites `{a, b}` as `set((a, b))`, and set comprehensions in the same way."""

    def visit_Set(self, node: ast.Set) -> ast.AST:
        self.generic_visit(node)
        return _call_of_set(node, ast.Tuple(node.elts, ast.Load()))

    def visit_SetComp(self, node: ast.SetComp) -> ast.AST:
        self.generic_visit(node)
        return _call_of_set(node, ast.GeneratorExp(node.elt, node.generators))


def _call_of_set(node: ast.expr, items: ast.expr) -> ast.AST:
    return ast.copy_location(ast.Call(ast.Name("set", ast.Load()), [items], []), node)


def _program_class(namespace: dict[str, Any]) -> type[nn.Module]:
    classes = [
        value
        for value in namespace.values()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ == namespace["__name__"]
    ]
    if len(classes) != 1:
        raise BrokenContract(f"{len(classes)} nn.Module classes at module level; write exactly one")
    return classes[0]


def is_pair(init_inputs: Any) -> bool:
    """Whether it is `[[args], {kwargs}]`, as the downstream contract demands."""
    return (
        isinstance(init_inputs, list | tuple)
        and len(init_inputs) == 2
        and isinstance(init_inputs[0], list | tuple)
        and isinstance(init_inputs[1], dict)
    )


def _as_call(init_inputs: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the class. A plain list, as in other collections, means positional arguments."""
    if is_pair(init_inputs):
        return list(init_inputs[0]), dict(init_inputs[1])
    if isinstance(init_inputs, list | tuple):
        return list(init_inputs), {}
    raise BrokenContract(f"get_init_inputs returns {type(init_inputs).__name__}, not [[args], {{kwargs}}]")


def with_tensors(value: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """The value with its tensors replaced by `tensors`, in order."""
    match value:
        case torch.Tensor():
            return next(tensors)
        case list() | tuple():
            return type(value)([with_tensors(item, tensors) for item in value])
        case dict():
            return {key: with_tensors(item, tensors) for key, item in value.items()}
    return value


def copies(inputs: Sequence[Any]) -> list[Any]:
    return [item.clone() if isinstance(item, torch.Tensor) else copy.deepcopy(item) for item in inputs]


class Runner:
    """Runs a module on copies of the inputs, without gradients, from one random state.

    most: how many elements of an output are kept; of a larger output a regular sample is kept. None: all.
    """

    def __init__(self, forward: Callable[..., Any], seed: int, most: int | None = None) -> None:
        self._forward = forward
        self._seed = seed
        self._most = most

    def raw(self, inputs: Sequence[Any]) -> Any:
        fresh = copies(inputs)
        seed_everything(self._seed)
        with torch.no_grad():
            return self._forward(*fresh)

    def __call__(self, inputs: Sequence[Any]) -> list[torch.Tensor]:
        return self.kept(self.raw(inputs))

    def kept(self, result: Any) -> list[torch.Tensor]:
        """Copies of all tensors in the result: a program may return a buffer that it writes to later."""
        return [sampled(tensor.detach(), self._most) for tensor in tensors_in(result)]


def seed_everything(seed: int) -> None:
    """Seed torch, and the generators of Python and numpy, which a program may use as well."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed keeps a stack trace for each absent device
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
