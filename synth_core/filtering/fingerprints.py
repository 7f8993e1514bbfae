"""Fingerprints of a program: of its operators, of its captured graph, of its text. Pure, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from synth_core.filtering.normal_form import plain_form, shape_form
from synth_core.filtering.static_operators import static_operators
from synth_core.operators.catalog import find, realised_operator
from synth_core.records import Candidate, Graph, Node, operator_signature, sha256

# Calls that hand on their input's values: a graph means the same without them.
_TRANSPARENT = frozenset(
    f"torch.{owner}{name}"
    for owner in ("", "Tensor.")
    for name in ("contiguous", "clone", "detach", "positive", "__pos__", "alias")
)
_COMMUTATIVE = frozenset({"Add", "Multiply"})
_LEAVES = {"buffer": "parameter"}  # what a program learns and what it keeps count alike


@dataclass(frozen=True)
class Fingerprints:
    """What one program is compared by: its realised operators, and 16 hexadecimal digits of each hash."""

    operators: tuple[str, ...]
    text: str
    shape: str
    graph: str

    @classmethod
    def of(cls, candidate: Candidate) -> Fingerprints:
        """Of a candidate that has a program; without a graph its operators are read from the text."""
        assert candidate.program is not None
        source, graph = candidate.program.source, candidate.graph
        text, shape = text_hashes(source)
        operators = graph.operators if graph else static_operators(source) if text else ()
        return cls(operators, text, shape, graph_hash(graph) if graph and graph.nodes else "")

    def keys(self) -> dict[str, str]:
        """The fingerprints that may be new or held, by kind; those that could not be taken are left out."""
        keys = {
            "operators": operator_signature(self.operators) if self.operators else "",
            "graph": self.graph,
            "text": self.text,
        }
        return {kind: key for kind, key in keys.items() if key}


def text_hashes(source: str) -> tuple[str, str]:
    """Hashes of the plain form and of the shape form; both empty for a text that does not parse."""
    try:
        plain, shape = plain_form(source), shape_form(source)
    except (SyntaxError, ValueError, RecursionError):
        return "", ""
    return _short(plain), _short(shape) if shape else ""


def graph_hash(graph: Graph) -> str:
    """Hash of the computation, whatever its sizes, names, spelling or order of independent steps.

    Equal for graphs that are isomorphic once dimensions, identities (Dropout in eval, `contiguous`) and
    the order of an addition's or a multiplication's operands are ignored. Each node is hashed with all
    it is made of, and again with all that it goes into, so that one value used twice differs from two
    values. 16 hexadecimal digits.
    """
    nodes = _meaningful(graph)
    labels = {node.name: _label(node) for node in nodes}
    above: dict[str, str] = {}
    uses: dict[str, list[tuple[str, str]]] = {node.name: [] for node in nodes}
    for node in nodes:
        commutes = labels[node.name] in _COMMUTATIVE
        parts = [above[name] for name in node.inputs]
        arguments = _without_numbers(node.arguments)
        above[node.name] = _short(labels[node.name], arguments, *(sorted(parts) if commutes else parts))
        for position, name in enumerate(node.inputs):
            uses[name].append((node.name, "" if commutes else str(position)))
    below: dict[str, str] = {}
    for node in reversed(nodes):
        consumers = sorted(below[user] + slot + above[user] for user, slot in uses[node.name])
        below[node.name] = _short(labels[node.name], *consumers)
    return _short(*sorted(above[node.name] + below[node.name] for node in nodes))


def _meaningful(graph: Graph) -> list[Node]:
    """The nodes that the output depends on, with identities cut out, in forward order."""
    source: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(source.get(name, name) for name in node.inputs)
        if node.kind == "call" and inputs and _is_identity(node):
            source[node.name] = inputs[0]
        else:
            kept.append(node.model_copy(update={"inputs": inputs}))
    known = {node.name for node in kept}
    needed = {name for node in kept if node.kind == "output" for name in (node.name, *node.inputs)}
    alive = []
    for node in reversed(kept):
        if node.name in needed:
            inputs = tuple(name for name in node.inputs if name in known)
            needed.update(inputs)
            alive.append(node.model_copy(update={"inputs": inputs}))
    return alive[::-1]


def _is_identity(node: Node) -> bool:
    name = node.operator or realised_operator(node.target)
    return node.target in _TRANSPARENT or (name is not None and find(name).no_op_in_eval)


def _label(node: Node) -> str:
    """What a node computes, spelled one way: F.relu, torch.relu and x.relu() are all ReLU."""
    if node.kind != "call":
        return _LEAVES.get(node.kind, node.kind)
    name = realised_operator(node.target)
    return find(name).fingerprint if name else node.target.rpartition(".")[2]


def _without_numbers(arguments: str) -> str:
    """Canonical JSON with every number blanked: sizes, axes and constants say nothing of the structure."""
    if not arguments:
        return ""
    try:
        return json.dumps(_blank(json.loads(arguments)), sort_keys=True)
    except ValueError:
        return arguments


def _blank(value: Any) -> Any:
    match value:
        case bool() | str() | None:
            return value
        case int() | float():
            return "#"
        case list():
            return ["#"] if all(isinstance(v, int | float) for v in value) else [_blank(v) for v in value]
        case dict():
            return {key: _blank(v) for key, v in value.items()}
    return value


def _short(*parts: str) -> str:
    return sha256("\x1e".join(parts))[:16]
