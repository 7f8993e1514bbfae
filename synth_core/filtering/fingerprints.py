"""Fingerprints of a program's operators, captured graph and text. No torch.

They are computed in a child process with limits (limited.py): the text may be hostile to its parser.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from synth_core.filtering.normal_form import bare_form, plain_form
from synth_core.filtering.sketch import sketch
from synth_core.filtering.static_operators import static_operators
from synth_core.limited import Unreadable, limited
from synth_core.operators.catalog import find, realised_operator
from synth_core.operators.operator import Group
from synth_core.records import Graph, Node, operator_signature, sha256

# Calls that return their input's values unchanged: the graph computes the same without them.
_TRANSPARENT = frozenset(
    f"torch.{owner}{name}"
    for owner in ("", "Tensor.")
    for name in ("contiguous", "clone", "detach", "positive", "__pos__", "alias")
)
_COMMUTATIVE = frozenset({"Add", "Multiply"})
_LEAVES = {"buffer": "parameter"}  # buffers and parameters count as the same kind of leaf


@dataclass(frozen=True)
class Fingerprints:
    """The values by which one program is compared with others. A value that could not be computed is empty.

    operators: the realised ones, from the graph; without a graph, the same as `written`.
    written: operators from the syntax tree.
    text, form: hashes of `plain_form` and `bare_form`.
    graph: see `graph_hash`.
    shapes: hash of the operators in forward order, with the shapes of their results and of the inputs.
    sketch: MinHash sketch of the bare form.
    unreadable: why nothing could be computed for a text that may still be Python.
    """

    operators: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    text: str = ""
    form: str = ""
    graph: str = ""
    shapes: str = ""
    sketch: bytes = b""
    unreadable: str = ""

    @classmethod
    def of(cls, source: str, graph: Graph | None = None) -> Fingerprints:
        """Compute them from a program's text, and from its graph if it has been captured."""
        try:
            found = limited(f"{__name__}:take", source, graph.model_dump(mode="json") if graph else None)
        except Unreadable as error:
            return cls(unreadable=f"its text cannot be compared: {error}")
        tuples = {name: tuple(found[name]) for name in ("operators", "written") if name in found}
        return cls(**{**found, **tuples, "sketch": bytes.fromhex(found.get("sketch", ""))})

    def keys(self) -> dict[str, str]:
        """The fingerprints that a folder's index stores, by kind. Empty ones are left out."""
        operators = operator_signature(self.operators) if self.operators else ""
        keys = {"operators": operators, "graph": self.graph, "shapes": self.shapes}
        return {kind: key for kind, key in keys.items() if key}

    def operator_set(self) -> str:
        """Signature of the set of operators, without no-ops such as Dropout. Near-duplicates share it."""
        return operator_set(self.operators)


def take(source: str, graph_fields: dict[str, Any] | None) -> dict[str, Any]:
    """The fields of a `Fingerprints` as JSON; {} of a text that is no Python. What the child is asked for."""
    graph = Graph.model_validate(graph_fields) if graph_fields else None
    try:
        plain, bare, written = plain_form(source), bare_form(source), static_operators(source)
    except (SyntaxError, ValueError):
        return {}
    found = Fingerprints(
        operators=graph.operators if graph else written,
        written=written,
        text=_short(plain),
        form=_short(bare) if bare else "",
        graph=graph_hash(graph) if graph else "",
        shapes=_shapes_hash(graph) if graph else "",
        sketch=sketch(bare),
    )
    return asdict(found) | {"sketch": found.sketch.hex()}


def operator_set(operators: Iterable[str]) -> str:
    """Signature of a set of operators, without those that are no-ops in eval mode. Order does not matter."""
    rows = [find(name) for name in operators]
    return operator_signature(sorted({row.fingerprint for row in rows if not row.no_op_in_eval}))


def graph_hash(graph: Graph) -> str:
    """Hash of a computation. It ignores sizes, constants, names, spelling and the order of independent steps.

    Two isomorphic graphs have the same hash. It also ignores arguments, identities (Dropout in eval mode,
    `contiguous`) and the order of operands of an addition or multiplication. Each node is hashed with all
    its ancestors, and again with all its descendants. So one value used twice differs from two equal values.
    Empty if nothing reaches an output.
    """
    nodes = _meaningful(graph)
    if not nodes:
        return ""
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


def _shapes_hash(graph: Graph) -> str:
    shaped = [node for node in graph.nodes if node.operator or node.kind == "input"]
    return _short(*(f"{node.operator} {node.shape}" for node in shaped))


def _meaningful(graph: Graph) -> list[Node]:
    """The nodes that the output depends on, without identities, in forward order."""
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
    """What a node computes, under one name: F.relu, torch.relu, x.relu() and nn.ReLU are all ReLU."""
    if node.kind != "call":
        return _LEAVES.get(node.kind, node.kind)
    name = _operator(node)
    return find(name).fingerprint if name else node.target.rpartition(".")[2]


def _operator(node: Node) -> str:
    """The operator that a single call is. A motif (pattern of several calls) that starts here is ignored."""
    named = "" if not node.operator or find(node.operator).group is Group.MOTIF else node.operator
    return realised_operator(node.target) or named


def _short(*parts: str) -> str:
    """16 hexadecimal digits (64 bits): a collision is unlikely among a hundred million graphs."""
    return sha256("\x1e".join(parts))[:16]
