"""The captured graph of one forward pass, read while the program runs eagerly: no Dynamo, and any device.

Validation reads the same nodes off Dynamo's graph (synth_core/graph/nodes.py). This is for what Dynamo does
not capture: benchmark problems on the meta device. Tests hold the two against each other.

A `TorchFunctionMode` sees every torch call that `forward` makes, at the level at which people write it
(`torch.nn.functional.relu`, not its aten parts); hooks on every module say which call belongs to which layer.
A *unit* is what may realise an operator: a call of a module of the catalog (the outermost one), or a torch
call outside any such module.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakTensorKeyDictionary

from synth_core.operators.catalog import realised_operator
from synth_core.operators.recognise import recognise
from synth_core.records import Node

Function = Callable[..., Any]


def dotted(function: Function) -> str:
    """`torch.nn.functional.relu` for the function that torch hands to a mode."""
    return resolve_name(function) or f"{function.__module__}.{function.__qualname__}"


def class_name(module: nn.Module) -> str:
    """`torch.nn.modules.conv.Conv2d`."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def module_operator(module: nn.Module) -> str | None:
    """The catalog name of a library layer; None for the program's own class and for containers."""
    return realised_operator(class_name(module))


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested tuples, lists and dicts, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


class UnitWalker(TorchFunctionMode):
    """Numbers units while a program runs. Subclasses see each call and may replace each unit's result."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = 0  # the one that is running, or that the next call outside a module starts
        self._open: nn.Module | None = None  # the catalog module that is running, if any
        self._hooks: list[Any] = []

    def on_call(self, name: str, arguments: Any, call: Callable[[], Any]) -> Any:
        """One torch call; `call()` makes it."""
        return call()

    def on_unit(self, name: str, result: Any) -> Any:
        """Unit number `unit` has finished; what is returned takes the result's place."""
        return result

    def __enter__(self) -> UnitWalker:
        self._hooks = [
            register_module_forward_pre_hook(self._module_starts),
            register_module_forward_hook(self._module_ends),
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def __torch_function__(
        self, function: Function, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        name, arguments = dotted(function), (args, named)
        result = self.on_call(name, arguments, lambda: function(*args, **named))
        if self._open is None:
            result = self.on_unit(name, result)
            self.unit += 1
        return result

    def _module_starts(self, module: nn.Module, args: Any) -> None:
        if self._open is None and module_operator(module):
            self._open = module
            with torch._C.DisableTorchFunction():
                self.on_module(module, args)

    def on_module(self, module: nn.Module, args: Any) -> None:
        """A layer of the catalog starts, as unit number `unit`."""

    def _module_ends(self, module: nn.Module, args: Any, result: Any) -> Any:
        if module is not self._open:
            return None
        self._open = None
        with torch._C.DisableTorchFunction():
            result = self.on_unit(class_name(module), result)
        self.unit += 1
        return result


@dataclass(frozen=True)
class Captured:
    """A captured graph. units: operators in forward order, each with the number of its unit."""

    nodes: tuple[Node, ...]
    units: tuple[tuple[str, int], ...]


class Recorder(UnitWalker):
    """Records every call; `finish(outputs)` gives those that the outputs depend on."""

    def __init__(self, program: nn.Module, inputs: list[Any]) -> None:
        super().__init__()
        self._nodes: dict[str, Node] = {}
        self._units: dict[str, int] = {}  # node -> unit
        self._modules: dict[int, nn.Module] = {}  # unit -> the layer that it is a call of
        self._names = WeakTensorKeyDictionary()  # tensor -> name of the node whose value it holds now
        self._leaves = WeakTensorKeyDictionary()  # tensor -> (kind, name); becomes a node at first use
        self._leaves.update({t: ("buffer", f"self.{path}") for path, t in program.named_buffers()})
        self._leaves.update({t: ("parameter", f"self.{path}") for path, t in program.named_parameters()})
        self._leaves.update(
            {t: ("input", f"input_{i}") for i, t in enumerate(inputs) if isinstance(t, torch.Tensor)}
        )

    def on_module(self, module: nn.Module, args: Any) -> None:
        self._modules[self.unit] = module

    def on_call(self, name: str, arguments: Any, call: Callable[[], Any]) -> Any:
        operands = list(tensors_in(arguments))
        versions = [tensor._version for tensor in operands]
        result = call()
        produced = list(tensors_in(result))
        mutated = [t for t, version in zip(operands, versions, strict=True) if t._version != version]
        if not produced and not mutated:
            return result  # x.shape, x.dim(): nothing flows
        sources = tuple(self._name_of(tensor) for tensor in operands)
        value = produced[0] if len(produced) == 1 else None
        node = self._add(name, sources, canonical(arguments), value)
        for tensor in mutated:
            self._overwrite(tensor, node)
        if value is not None:
            self._names[value] = node
        else:
            for position, tensor in enumerate(produced):
                self._names[tensor] = self._add("operator.getitem", (node,), f"[{position}]", tensor)
        return result

    def on_unit(self, name: str, result: Any) -> Any:
        """A layer that made no call (Identity) is a step on the way all the same."""
        if self.unit in self._modules and self.unit not in self._units.values():
            for tensor in tensors_in(result):
                self._names[tensor] = self._add(name, (self._name_of(tensor),), "", tensor)
        return result

    def finish(self, outputs: list[torch.Tensor]) -> Captured:
        """The live nodes in the order of their making, then one of kind `output` that reads the outputs."""
        sources = tuple(self._name_of(tensor) for tensor in outputs)
        live: set[str] = set()
        pending = list(sources)
        while pending:
            name = pending.pop()
            if name not in live:
                live.add(name)
                pending.extend(self._nodes[name].inputs)
        seen: set[int] = set()
        nodes = []
        for name, node in self._nodes.items():
            if name in live:
                unit = self._units.get(name, -1)
                nodes.append(node.model_copy(update={"operator": self._operator(node, unit, unit in seen)}))
                seen.add(unit)
        refined = recognise([*nodes, Node(name="output", kind="output", inputs=sources)])
        return Captured(refined, tuple((n.operator, self._units[n.name]) for n in refined if n.operator))

    def _operator(self, node: Node, unit: int, repeated: bool) -> str:
        """A layer's operator goes to its first node, a function's to its own."""
        if unit in self._modules:
            return "" if repeated else module_operator(self._modules[unit]) or ""
        return realised_operator(node.target) or "" if node.kind == "call" else ""

    def _name_of(self, tensor: torch.Tensor) -> str:
        """The node whose value the tensor holds; a leaf that is met for the first time becomes one."""
        if tensor in self._names:
            return str(self._names[tensor])
        unknown = ("constant", f"constant_{len(self._nodes)}")
        kind, name = unknown if tensor not in self._leaves else self._leaves[tensor]  # noqa: SIM401
        self._names[tensor] = name
        self._nodes[name] = Node(
            name=name, kind=kind, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch.")
        )
        return name

    def _add(self, target: str, inputs: tuple[str, ...], arguments: str, value: torch.Tensor | None) -> str:
        stem = target.removesuffix(".__get__").rpartition(".")[2].strip("_") or "call"
        name = f"{stem}_{len(self._nodes)}"
        self._nodes[name] = Node(
            name=name,
            kind="call",
            target=target,
            inputs=inputs,
            arguments=arguments,
            shape=None if value is None else tuple(value.shape),
            dtype="" if value is None else str(value.dtype).removeprefix("torch."),
        )
        self._units[name] = self.unit
        return name

    def _overwrite(self, tensor: torch.Tensor, node: str) -> None:
        """Every tensor that shares the overwritten memory now holds a value that `node` made."""
        address = tensor.untyped_storage().data_ptr()
        for other in list(self._names):
            if other.untyped_storage().data_ptr() == address:
                self._names[other] = node
        self._names[tensor] = node


def canonical(arguments: Any) -> str:
    """Positional and named arguments as JSON; `$0`, `$1`, … stand for the tensors, in `inputs` order."""
    tensors = itertools.count()

    def plain(value: Any) -> Any:
        match value:
            case torch.Tensor():
                return f"${next(tensors)}"
            case bool() | int() | float() | str() | None:
                return value
            case slice():
                return {"slice": [plain(value.start), plain(value.stop), plain(value.step)]}
            case tuple() | list():
                return [plain(item) for item in value]
            case dict():
                return {str(key): plain(item) for key, item in value.items()}
        return "..." if value is Ellipsis else str(value)

    args, kwargs = arguments
    return json.dumps([plain(args), plain(kwargs)], separators=(",", ":"))
