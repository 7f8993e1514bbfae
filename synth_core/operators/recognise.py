"""Recognises operators that a call's name alone does not identify, from the captured graph around it.

`torch.add` may be a plain Add, a BiasAdd (one side is a parameter) or a ResidualAdd (one side is an
ancestor of the other). A mean over all spatial axes is a GlobalAvgPool. Motifs are found as sub-graphs.
"""

from __future__ import annotations

from collections.abc import Sequence

from synth_core.operators import patterns
from synth_core.operators.catalog import find
from synth_core.operators.motifs import MOTIFS
from synth_core.records import Node

_FIXED = frozenset({"parameter", "buffer", "constant"})
_PASSED_BY = frozenset({"activation", "normalisation", "dropout"})


def recognise(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Set the final operator of each node of a captured graph. Returns the nodes in forward order.

    nodes: as captured; `operator` is the result of `catalog.realised_operator` for the target. Nodes inside a
        module that has its own node (the Linears inside a TransformerEncoder) have no operator.
    The last node of a motif gets the motif's name. Its other nodes then have no operator.
    """
    by_name = {node.name: node for node in nodes}
    ancestors: dict[str, frozenset[str]] = {}
    for node in nodes:
        ancestors[node.name] = frozenset(node.inputs).union(*(ancestors.get(i, ()) for i in node.inputs))
    for node in nodes:
        operands = [by_name[name] for name in node.inputs if name in by_name]
        operator = _refine(node, operands, ancestors)
        if operator != node.operator:
            by_name[node.name] = node.model_copy(update={"operator": operator})
    return _name_motifs(by_name)


def _name_motifs(graph: dict[str, Node]) -> tuple[Node, ...]:
    """Name the motifs. A node belongs to at most one motif. Patterns are tried in catalog order."""
    motif_of: dict[str, str] = {}
    for motif in MOTIFS:
        for pattern in map(patterns.parse, motif.patterns):
            for root in graph.values():
                if root.kind != "call" or root.name in motif_of:
                    continue
                members = patterns.find(pattern, root, graph, _passes)
                if members and not any(member.name in motif_of for member in members):
                    motif_of |= {member.name: "" for member in members} | {root.name: motif.name}
    return tuple(
        node.model_copy(update={"operator": motif_of[node.name]}) if node.name in motif_of else node
        for node in graph.values()
    )


def _passes(node: Node) -> bool:
    return bool(node.operator) and find(node.operator).section in _PASSED_BY


def _refine(node: Node, operands: list[Node], ancestors: dict[str, frozenset[str]]) -> str:
    match node.operator:
        case "Add":
            if any(operand.kind in _FIXED for operand in operands):
                return "BiasAdd"
            return "ResidualAdd" if _is_residual(node, operands, ancestors) else "Add"
        case "Multiply" if len(operands) == 1 or any(operand.kind in _FIXED for operand in operands):
            return "Scale"
        case "Max" | "Min" if len(operands) == 2:  # torch.max(a, b) is an element-wise maximum, no reduction
            return ""
        case "Mean" if operands and _reduces_space(node, operands[0]):
            return "GlobalAvgPool"
    return node.operator


def _is_residual(node: Node, operands: list[Node], ancestors: dict[str, frozenset[str]]) -> bool:
    if len(operands) != 2 or operands[0].shape != operands[1].shape:
        return False
    first, second = operands
    return first.name in ancestors[second.name] or second.name in ancestors[first.name]


def _reduces_space(node: Node, operand: Node) -> bool:
    """Whether a mean reduces (batch, channels, spatial…) to (batch, channels), with or without keepdim."""
    if operand.shape is None or node.shape is None or len(operand.shape) < 4:
        return False
    kept = tuple(size for size in operand.shape[:2])
    return node.shape in (kept, (*kept, *(1 for _ in operand.shape[2:])))
