"""What a call's name alone does not tell: read from the captured graph around it.

`torch.add` may be a plain Add, a BiasAdd (one side is a parameter) or a ResidualAdd (one side is an
ancestor of the other); a mean over all spatial axes is a GlobalAvgPool.
"""

from __future__ import annotations

from collections.abc import Sequence

from synth_core.records import Node

_FIXED = frozenset({"parameter", "buffer", "constant"})


def recognise(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes of a captured graph, in forward order, with the final operator of each.

    nodes: as captured, `operator` being what `catalog.realised_operator` says of the target. Nodes that a
        module's own node stands for (the Linears inside a TransformerEncoder) carry no operator.
    """
    by_name = {node.name: node for node in nodes}
    ancestors: dict[str, frozenset[str]] = {}
    for node in nodes:
        ancestors[node.name] = frozenset(node.inputs).union(*(ancestors.get(i, ()) for i in node.inputs))
    refined = []
    for node in nodes:
        operands = [by_name[name] for name in node.inputs if name in by_name]
        operator = _refine(node, operands, ancestors)
        refined.append(node if operator == node.operator else node.model_copy(update={"operator": operator}))
    return tuple(refined)


def _refine(node: Node, operands: list[Node], ancestors: dict[str, frozenset[str]]) -> str:
    match node.operator:
        case "Add":
            if any(operand.kind in _FIXED for operand in operands):
                return "BiasAdd"
            return "ResidualAdd" if _is_residual(node, operands, ancestors) else "Add"
        case "Multiply" if len(operands) == 1 or any(operand.kind in _FIXED for operand in operands):
            return "Scale"
        case "Max" | "Min" if (
            len(operands) == 2
        ):  # torch.max(a, b) takes the larger of two, element by element
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
    """Whether a mean leaves (batch, channels) of a (batch, channels, spatial…) value, kept axes or not."""
    if operand.shape is None or node.shape is None or len(operand.shape) < 4:
        return False
    kept = tuple(size for size in operand.shape[:2])
    return node.shape in (kept, (*kept, *(1 for _ in operand.shape[2:])))
