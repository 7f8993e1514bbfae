"""What a record realises: the nodes that filters and rules read, the operators in forward order. No torch.

The record must be measured (rebuild.measured). Calls get the names that `torch.overrides.resolve_name` gives
while a program runs eagerly: `operator.add` is `torch.Tensor.add`. A call that writes in place makes a new
node, and every value that shares the memory is that node from then on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from synth_core.graph.eager_names import arguments_of, name_of
from synth_core.graph.layers import believed
from synth_core.graph.record import BadGraph, Call, GraphRecord, Leaf, call_references, references
from synth_core.operators.catalog import realised_operator
from synth_core.operators.recognise import recognise
from synth_core.records import Node


@dataclass(frozen=True)
class Unit:
    """The calls that realise one operator: those of a layer, or a single one.

    operands: the values that they read from outside, without parameters and, for a layer, without buffers.
    results: those of the calls whose values are read outside, or returned.
    """

    operator: str
    calls: tuple[str, ...]
    operands: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True)
class _Value:
    """A value of the record: the node that each of its tensors is now, and the memory that each lies in."""

    nodes: tuple[str | None, ...]
    memory: tuple[int | None, ...]
    many: bool = False


def nodes_of(record: GraphRecord) -> tuple[Node, ...]:
    """The nodes that the outputs depend on, in the order of their making, then one of kind `output`."""
    return _Reading(record).nodes


def units_of(record: GraphRecord) -> tuple[Unit, ...]:
    """One unit for each realised operator, in forward order."""
    return _Reading(record).units()


def written_leaves(record: GraphRecord) -> tuple[str, ...]:
    """The leaves whose memory a call writes to: a buffer that keeps a state, an input that is overwritten."""
    written = {memory for call in record.calls for memory in call.writes}
    return tuple(leaf.name for leaf in record.leaves if record.memory.get(leaf.name) in written)


class _Reading:
    def __init__(self, record: GraphRecord) -> None:
        self._record = record
        self._leaves: dict[str, Leaf] = {leaf.name: leaf for leaf in record.leaves}
        self._nodes: dict[str, Node] = {}
        self._values: dict[str, _Value] = {}
        self._calls: dict[str, Call] = {}  # node -> the call that made it
        self._same: dict[str, set[str]] = {}  # value -> all values that are this very tensor
        self._layers = believed(record)
        for call in record.calls:
            self._add(call)
        sources = tuple(self._read(references(record.output)))
        output = Node(name="output", kind="output", inputs=sources)
        self.nodes = recognise([*self._with_operators(self._live(sources)), output])

    def units(self) -> tuple[Unit, ...]:
        return tuple(self._unit(node) for node in self.nodes if node.operator)

    def _read(self, names: Iterable[str]) -> list[str]:
        """The nodes that the values are now, a tuple's items one by one."""
        values = (self._values.get(name) or self._leaf(name) for name in names)
        return [node for value in values for node in value.nodes if node is not None]

    def _leaf(self, name: str) -> _Value:
        """A leaf becomes a node when it is first read."""
        leaf = self._leaves[name]
        node = f"self.{leaf.path}" if leaf.kind in ("parameter", "buffer") else name
        self._nodes[node] = Node(name=node, kind=leaf.kind, shape=leaf.shape, dtype=leaf.dtype)
        self._values[name] = _Value((node,), (self._record.memory.get(name),))
        return self._values[name]

    def _add(self, call: Call) -> None:
        if call.results is None:
            raise BadGraph("the record is not measured")
        memory = tuple(None if result is None else result.memory for result in call.results)
        item = self._item(call)
        if item is not None:
            self._values[call.name] = _Value((item,), memory)
            return
        tensors = [result for result in call.results if result is not None]
        if not tensors and not call.writes:
            self._values[call.name] = _Value((), ())
            return
        inputs = tuple(self._read(call_references(call)))
        node = self._make(call, name_of(call), inputs, self._written_arguments(call))
        self._overwrite(call.writes, node)
        if len(tensors) == 1:
            shape, dtype = tensors[0].shape, tensors[0].dtype
            self._nodes[node] = self._nodes[node].model_copy(update={"shape": shape, "dtype": dtype})
            made = tuple(None if result is None else node for result in call.results)
        else:
            made = self._items(call, node)
        self._values[call.name] = _Value(made, memory, call.many)
        if call.passes is not None:
            self._pass(call.passes, call.name)

    def _pass(self, operand: str, result: str) -> None:
        """Who reads the operand later reads what the call returned: it is the same tensor."""
        same = self._same.setdefault(operand, {operand})
        same.add(result)
        self._same[result] = same
        for name in same:
            self._values[name] = self._values[result]

    def _written_arguments(self, call: Call) -> str:
        return arguments_of(call, lambda name: len(self._read([name])))

    def _items(self, call: Call, node: str) -> tuple[str | None, ...]:
        """Every tensor of a tuple is a node of its own, as a program takes them apart."""
        made: list[str | None] = []
        numbers = itertools.count()
        for result in call.results or ():
            if result is None:
                made.append(None)
                continue
            item = self._make(call, "operator.getitem", (node,), f"[{next(numbers)}]")
            update = {"shape": result.shape, "dtype": result.dtype}
            self._nodes[item] = self._nodes[item].model_copy(update=update)
            made.append(item)
        return tuple(made)

    def _item(self, call: Call) -> str | None:
        """The node of a tensor that the call only takes out of a tuple."""
        match call.target, call.args:
            case "operator.getitem", [{"ref": name}, int(place)]:
                value = self._values.get(name)
                if value is not None and value.many and -len(value.nodes) <= place < len(value.nodes):
                    return value.nodes[place]
        return None

    def _make(self, call: Call, target: str, inputs: tuple[str, ...], arguments: str) -> str:
        stem = target.removesuffix(".__get__").rpartition(".")[2].strip("_") or "call"
        name = f"{stem}_{len(self._nodes)}"
        self._nodes[name] = Node(name=name, kind="call", target=target, inputs=inputs, arguments=arguments)
        self._calls[name] = call
        return name

    def _overwrite(self, memory: Sequence[int], node: str) -> None:
        """Every value that lies in overwritten memory is one that `node` made."""
        if not memory:
            return
        for name in self._record.memory:
            if self._record.memory[name] in memory and name not in self._values:
                self._leaf(name)
        for name, value in self._values.items():
            nodes = tuple(
                node if place in memory else old for old, place in zip(value.nodes, value.memory, strict=True)
            )
            self._values[name] = replace(value, nodes=nodes)

    def _live(self, sources: Sequence[str]) -> list[Node]:
        live: set[str] = set()
        pending = list(sources)
        while pending:
            name = pending.pop()
            if name not in live:
                live.add(name)
                pending.extend(self._nodes[name].inputs)
        return [node for name, node in self._nodes.items() if name in live]

    def _with_operators(self, nodes: Iterable[Node]) -> list[Node]:
        """A layer's operator goes to its first node, a function's to its own."""
        named: list[Node] = []
        seen: set[int] = set()
        for node in nodes:
            call = self._calls.get(node.name)
            layer = call.layer if call is not None and call.layer in self._layers else None
            if layer is None:
                operator = realised_operator(node.target) or "" if call is not None else ""
            else:
                operator = "" if layer in seen else self._layers[layer]
                seen.add(layer)
            named.append(node.model_copy(update={"operator": operator}))
        return named

    def _unit(self, node: Node) -> Unit:
        call = self._calls[node.name]
        layer = call.layer if call.layer in self._layers else None
        calls = [c for c in self._record.calls if c.layer == layer] if layer is not None else [call]
        names = {c.name for c in calls}
        outside = [name for c in calls for name in call_references(c) if name not in names]
        unread = ("parameter",) if layer is None else ("parameter", "buffer")
        operands = [n for n in outside if n not in self._leaves or self._leaves[n].kind not in unread]
        read = {name for c in self._record.calls if c.name not in names for name in call_references(c)}
        read.update(references(self._record.output))
        return Unit(
            operator=node.operator,
            calls=tuple(c.name for c in calls),
            operands=tuple(dict.fromkeys(operands)),
            results=tuple(c.name for c in calls if c.name in read),
        )
