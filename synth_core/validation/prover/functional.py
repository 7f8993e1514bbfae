"""Replaces in-place operators of a traced graph by those that make a new tensor, in the simple cases.

Torch's own composite functions (the recurrent cells, cosine_similarity) write to tensors that they have just
made. Nobody else reads such a tensor. So the value after the write is a new value, and every later reader
takes it. Other cases are left to AOT Autograd, which costs several times as much.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

OUT_OF_PLACE: dict[Any, Any] = {
    aten.add_.Tensor: aten.add.Tensor,
    aten.add_.Scalar: aten.add.Scalar,
    aten.sub_.Tensor: aten.sub.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.mul_.Scalar: aten.mul.Scalar,
    aten.div_.Tensor: aten.div.Tensor,
    aten.tanh_.default: aten.tanh.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.relu_.default: aten.relu.default,
    aten.neg_.default: aten.neg.default,
    aten.exp_.default: aten.exp.default,
    aten.sqrt_.default: aten.sqrt.default,
}
_PARTS = (aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int)
"""These return parts that do not overlap."""


def make_functional(graph: fx.GraphModule) -> bool:
    """Rewrite every in-place call. False if one is not simple; the graph is then half rewritten."""
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    writes = [node for node in order if _writes(node)]
    return all(_rewritten(graph.graph, node, order) for node in writes)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _rewritten(graph: fx.Graph, node: fx.Node, order: dict[fx.Node, int]) -> bool:
    target = node.args[0]
    if not isinstance(target, fx.Node) or node.kwargs or not _only_reader(target, node, order):
        return False
    if node.target is aten.copy_.default:
        value = node.args[1]
        if not isinstance(value, fx.Node) or not _alike(target, value):
            return False
    elif node.target in OUT_OF_PLACE and _same_type(node):
        with graph.inserting_before(node):
            value = graph.call_function(OUT_OF_PLACE[node.target], node.args)
        value.meta = dict(node.meta)
        order[value] = order[node]
    else:
        return False
    after = order[node]
    node.replace_all_uses_with(value)
    target.replace_all_uses_with(value, delete_user_cb=lambda user: order[user] > after)
    graph.erase_node(node)
    return True


def _only_reader(target: fx.Node, write: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Whether `target` is the only value that shares its memory and is read after the write.

    A call of this graph must have made the tensor, or the whole tensor that it is a part of.
    """
    related = {target}
    pending = [target]
    while pending:
        node = pending.pop()
        if node.op != "call_function":
            return False
        for source in _viewed(node):  # whole, not part by part: parts do not overlap
            wholes = _viewed(source) if source.target in _PARTS else [source]
            related.update((source, *wholes))
            pending += wholes
        for user in node.users:
            if user is not write and user not in related and node in _viewed(user):
                related.add(user)
                pending.append(user)
    after = order[write]
    return not any(order[user] > after for node in related if node is not target for user in node.users)


def _viewed(node: fx.Node) -> list[fx.Node]:
    """The operands whose memory the results of a call may share."""
    if node.op != "call_function":
        return []
    if not isinstance(node.target, torch._ops.OpOverload):
        return list(node.all_input_nodes)  # operator.getitem
    if node.target._schema.is_mutable:
        return node.all_input_nodes[:1]
    shares = any(argument.alias_info is not None for argument in node.target._schema.arguments)
    return node.all_input_nodes[:1] if shares else []


def _alike(one: fx.Node, other: fx.Node) -> bool:
    a, b = one.meta.get("val"), other.meta.get("val")
    return (
        isinstance(a, torch.Tensor)
        and isinstance(b, torch.Tensor)
        and (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())
    )


def _same_type(write: fx.Node) -> bool:
    """Whether the replacement gives the shape and dtype of the tensor that is written to."""
    first, *others = (argument.meta.get("val") for argument in write.all_input_nodes)
    return isinstance(first, torch.Tensor) and all(
        isinstance(other, torch.Tensor) and (other.dtype, other.shape) == (first.dtype, first.shape)
        for other in others
    )
