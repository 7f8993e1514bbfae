"""Sub-graph patterns: the syntax that describes a motif in one line, and the search in a captured graph.

    pattern   = [~] names [condition] ( arguments ) | variable
    names     = a catalog name, or a function's own name (`rsqrt`), or several joined by `|`;
                `+` means Add|ResidualAdd|BiasAdd, `*` means Multiply|Scale
    condition = one of CONDITIONS, in brackets
    ~         = activations, normalisations and dropouts may come between
    variable  = a lower-case letter: any value; the same letter always means the same value

Arguments are the first inputs, in order. For sums and products, the order does not matter. Views and reshapes
between two members are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import permutations

from synth_core.records import Node

SHORT = {"+": "Add|ResidualAdd|BiasAdd", "*": "Multiply|Scale"}
COMMUTES = frozenset({"Add", "ResidualAdd", "BiasAdd", "Multiply", "Scale"})
VIEWS = frozenset(
    {"transpose", "permute", "movedim", "swapaxes", "mT", "T", "reshape", "view", "flatten", "unflatten"}
    | {"unsqueeze", "squeeze", "expand", "expand_as", "getitem", "chunk", "split", "unbind"}
    | {"contiguous", "clone", "to", "float", "type_as"}
)
_TOKEN = re.compile(r"\s*([~(),]|\[\w+\]|[\w|+*]+)")


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern.

    names: what the node may be, the usual name first. Empty for a variable.
    loose: `~` was given. variable: the letter of a variable, else empty.
    """

    names: tuple[str, ...]
    arguments: tuple[Pattern, ...] = ()
    condition: str = ""
    loose: bool = False
    variable: str = ""


@cache
def parse(text: str) -> Pattern:
    """Parse a pattern. Raises `ValueError` if the text is not a pattern."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise ValueError(f"not a pattern: {text!r}")
    pattern, rest = _parse(tokens)
    if rest:
        raise ValueError(f"more than one pattern: {text!r}")
    return pattern


def _parse(tokens: list[str]) -> tuple[Pattern, list[str]]:
    loose = tokens[0] == "~"
    head, *rest = tokens[1:] if loose else tokens
    condition = ""
    if rest and rest[0].startswith("["):
        condition, rest = rest[0].strip("[]"), rest[1:]
        if condition not in CONDITIONS:
            raise ValueError(f"unknown condition {condition!r}")
    if not rest or rest[0] != "(":
        return Pattern((), variable=head), rest
    arguments = []
    rest = rest[1:]
    while rest[0] != ")":
        argument, rest = _parse(rest)
        arguments.append(argument)
        rest = rest[rest[0] == "," :]
    names = "|".join(SHORT.get(name, name) for name in head.split("|"))
    return Pattern(tuple(names.split("|")), tuple(arguments), condition, loose), rest[1:]


def parts(pattern: Pattern) -> list[tuple[str, ...]]:
    """The members that are catalog operators, in forward order. Each item lists its alternatives."""
    found = [part for argument in pattern.arguments for part in parts(argument)]
    named = tuple(name for name in pattern.names if name[0].isupper())
    return [*found, named] if named else found


def function_name(node: Node) -> str:
    """The name without its module: `rsqrt` for torch.rsqrt and torch.Tensor.rsqrt."""
    return node.target.removesuffix(".__get__").rpartition(".")[2].strip("_")


Graph = Mapping[str, Node]


def find(pattern: Pattern, root: Node, graph: Graph, passes: Callable[[Node], bool]) -> list[Node] | None:
    """The nodes of a match that ends in `root`, or None. passes: whether `~` may skip a node."""
    match = next(_match(pattern, root, graph, passes, {}), None)
    return None if match is None else match[0]


_Match = tuple[list[Node], dict[str, str]]


def _match(
    pattern: Pattern, node: Node, graph: Graph, passes: Callable[[Node], bool], bound: dict[str, str]
) -> Iterator[_Match]:
    if pattern.variable:
        value = _beneath_views(node, graph).name
        if bound.get(pattern.variable, value) == value:
            yield [], {**bound, pattern.variable: value}
        return
    if (node.operator or function_name(node)) in pattern.names:
        operands = [graph[name] for name in node.inputs]
        if not pattern.condition or CONDITIONS[pattern.condition](node, operands):
            for members, now in _match_arguments(pattern, operands, graph, passes, bound):
                yield [*members, node], now
        return
    through = function_name(node) in VIEWS or (pattern.loose and passes(node))
    if through and node.inputs:
        yield from _match(pattern, graph[node.inputs[0]], graph, passes, bound)


def _match_arguments(
    pattern: Pattern,
    operands: list[Node],
    graph: Graph,
    passes: Callable[[Node], bool],
    bound: dict[str, str],
) -> Iterator[_Match]:
    count = len(pattern.arguments)
    if len(operands) < count:
        return
    commutes = not COMMUTES.isdisjoint(pattern.names)
    orders = permutations(operands, count) if commutes else iter([tuple(operands[:count])])
    for order in orders:
        found: list[_Match] = [([], bound)]
        for argument, operand in zip(pattern.arguments, order, strict=True):
            found = [
                (members + more, later)
                for members, now in found
                for more, later in _match(argument, operand, graph, passes, now)
            ]
        yield from found


def _beneath_views(node: Node, graph: Graph) -> Node:
    while node.kind == "call" and function_name(node) in VIEWS and node.inputs:
        node = graph[node.inputs[0]]
    return node


def _weight(operands: list[Node]) -> tuple[int, ...]:
    return (operands[1].shape or ()) if len(operands) > 1 else ()


def _is_patch(node: Node, operands: list[Node]) -> bool:
    """Whether the convolution's stride equals its kernel size: output size = input size // kernel size."""
    kernel, before = _weight(operands)[2:], (operands[0].shape or ())[2:]
    after = (node.shape or ())[2:]
    return (
        bool(kernel)
        and min(kernel) > 1
        and all(b // k == a for a, b, k in zip(after, before, kernel, strict=True))
    )


CONDITIONS: Mapping[str, Callable[[Node, list[Node]], bool]] = {
    "causal": lambda node, _: '"is_causal":true' in node.arguments,
    "gqa": lambda node, _: '"enable_gqa":true' in node.arguments,
    "parameter": lambda _, operands: any(operand.kind == "parameter" for operand in operands),
    "depthwise": lambda _, operands: _weight(operands)[1:2] == (1,) and _weight(operands)[0] > 1,
    "pointwise": lambda _, operands: set(_weight(operands)[2:]) == {1},
    "patch": _is_patch,
}
