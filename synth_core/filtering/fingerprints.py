"""Fingerprints of a program: of its operators, of its captured graph, of its text. Pure, no torch."""

from __future__ import annotations

from dataclasses import dataclass

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
    """What one program is compared by: its realised operators and three hashes, empty where not to be had.

    text: of the plain form. shape: of the shape form. graph: see `graph_hash`.
    """

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
    """Hash of the computation, whatever its sizes, constants, names, spelling or order of independent steps.

    Equal for graphs that are isomorphic once arguments, identities (Dropout in eval, `contiguous`) and the
    order of an addition's or a multiplication's operands are ignored. Each node is hashed with all that it
    is made of, and again with all that it goes into, so that one value used twice differs from two values.
    """
    nodes = _meaningful(graph)
    labels = {node.name: _label(node) for node in nodes}
    above: dict[str, str] = {}
    uses: dict[str, list[tuple[str, str]]] = {node.name: [] for node in nodes}
    for node in nodes:
        commutes = labels[node.name] in _COMMUTATIVE
        parts = [above[name] for name in node.inputs]
        above[node.name] = _short(labels[node.name], *(sorted(parts) if commutes else parts))
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
    needed: set[str] = set()
    alive = []
    for node in reversed(kept):
        if node.kind == "output" or node.name in needed:
            needed.update(node.inputs)
            alive.append(node)
    return alive[::-1]


def _is_identity(node: Node) -> bool:
    name = _operator(node)
    return node.target in _TRANSPARENT or bool(name and find(name).no_op_in_eval)


def _label(node: Node) -> str:
    """What a node computes, spelled one way: F.relu, torch.relu, x.relu() and nn.ReLU are all ReLU."""
    if node.kind != "call":
        return _LEAVES.get(node.kind, node.kind)
    name = _operator(node)
    return find(name).fingerprint if name else node.target.rpartition(".")[2]


def _operator(node: Node) -> str:
    return node.operator or realised_operator(node.target) or ""


def _short(*parts: str) -> str:
    """16 hexadecimal digits: no two of a hundred million graphs are likely to share them."""
    return sha256("\x1e".join(parts))[:16]
