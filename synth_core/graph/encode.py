"""From torch's objects to the record's arguments; what the record can't hold is refused by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from synth_core.graph.record import DTYPES, LAYOUTS, MAX_INT, MAX_TEXT, MEMORY_FORMATS, Call
from synth_core.graph.targets import FUNCTIONS, name_of
from synth_core.graph.vocabulary import GETTER, METHOD

KINDS: Mapping[str, str] = {
    "graph_break": "Dynamo can't trace forward as one graph",
    "several_graphs": "Dynamo traced forward more than once",
    "dynamo": "Dynamo failed with an error of its own",
    "higher_order_operator": "control flow, checkpointing and the like, whose bodies are graphs themselves",
    "autocast": "forward opens a region of autocast",
    "mode": "forward switches a mode of torch, such as inference mode",
    "data_dependent": "a shape or a number depends on the values of a tensor",
    "target": "forward calls what is outside the vocabulary",
    "constant": "an argument of a call is neither a tensor nor plain data",
    "scalar": "the graph reads a number from outside",
    "tensor_subclass": "an input, a parameter or a buffer is of a class of its own",
    "layout": "a tensor is sparse, quantized, or of a dtype or device that the record does not know",
    "output": "forward returns what is neither a tensor nor plain data",
    "too_large": "the graph has too many calls",
}
"""Why a graph can't be captured: kind -> what it means."""


class NotCapturable(Exception):
    """There is no record of this program. kind: one of KINDS."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


_AUTOCAST = frozenset({"_enter_autocast", "_exit_autocast"})
_NO_EFFECT = frozenset({"_set_grad_enabled"})  # nothing is differentiated here
_MODES = frozenset({"_enter_inference_mode", "_exit_inference_mode", "_saved_tensors_hooks_disable"})


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested tuples, lists and dicts, in order."""
    return (tensor for _, tensor in paths_of(value))


def paths_of(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor with its place: `1.mask` is the entry `mask` of the second item."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, tuple | list | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from paths_of(item, f"{path}.{key}" if path else str(key))


def copies(values: Sequence[Any]) -> list[Any]:
    """The same values in memory of their own, no tensor twice."""

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.detach().clone().requires_grad_(value.requires_grad)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(copied, value))
        if isinstance(value, tuple | list):
            return type(value)(map(copied, value))
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        return copy.deepcopy(value)

    return [copied(value) for value in values]


def dtype_name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise NotCapturable("layout", f"a tensor of {name}")
    return name


def check_plain(tensor: torch.Tensor) -> None:
    """Refuse what is not a dense tensor of torch's own class."""
    if type(tensor) not in (torch.Tensor, nn.Parameter, getattr(nn, "Buffer", nn.Parameter)):
        raise NotCapturable("tensor_subclass", f"{type(tensor).__module__}.{type(tensor).__qualname__}")
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise NotCapturable("layout", f"a {str(tensor.layout).removeprefix('torch.')} tensor")
    if tensor.device.type not in ("cpu", "cuda"):
        raise NotCapturable("layout", f"a tensor on {tensor.device.type}")
    dtype_name(tensor.dtype)


def check_graph(graph: fx.GraphModule) -> None:
    """Refuse a graph whose parts are graphs, or whose shapes depend on values, before it is run."""
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            attribute(graph, node)
        example = node.meta.get("example_value")
        sizes = [size for tensor in tensors_in(example) for size in tensor.shape]
        if not all(isinstance(size, int) for size in sizes) or type(example).__name__.startswith("Sym"):
            raise NotCapturable("data_dependent", f"the result of {node.name}")


def attribute(graph: fx.GraphModule | None, node: fx.Node) -> torch.Tensor:
    """The tensor that a `get_attr` node reads."""
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    if isinstance(value, torch.Tensor):
        return value
    users = sorted({str(user.target) for user in node.users})
    raise NotCapturable("higher_order_operator", ", ".join(users) or str(node.target))


def calls(
    nodes: Iterable[fx.Node],
    names: dict[fx.Node, str],
    taken: set[str],
    layer_of: Callable[[fx.Node], int | None],
) -> tuple[Call, ...]:
    """The calls among the nodes. names: of the leaves; the calls' are added."""
    found = []
    for node in nodes:
        if node.op not in ("call_function", "call_method") or _without_effect(node):
            continue
        target = _target(node)
        args = node.args[:1] if target.endswith(GETTER) else node.args
        encoded = tuple(_argument(argument, names) for argument in args)
        named = {key: _argument(value, names) for key, value in node.kwargs.items()}
        name = names[node] = _free(node.name, taken)
        found.append(Call(name=name, target=target, args=encoded, kwargs=named, layer=layer_of(node)))
    return tuple(found)


def _without_effect(node: fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "") in _NO_EFFECT


def _free(name: str, taken: set[str]) -> str:
    """The name, of characters that every reader can bear, and with a number where it is taken."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)[:80] or "v"
    plain = plain if not plain[0].isdigit() else f"v{plain}"
    free, number = plain, 0
    while free in taken:
        number += 1
        free = f"{plain}_{number}"
    taken.add(free)
    return free


def _target(node: fx.Node) -> str:
    if node.op == "call_method":
        name = f"{METHOD}{node.target}"
    elif node.target is getattr:
        name = f"{METHOD}{node.args[1]}{GETTER}"
    else:
        name = name_of(node.target) or _refused(node.target)  # type: ignore[arg-type]
    if name not in FUNCTIONS:
        raise NotCapturable("target", name[:MAX_TEXT])
    return name


def _refused(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    if isinstance(function, torch._ops.HigherOrderOperator):
        raise NotCapturable("higher_order_operator", str(function))
    if name in _AUTOCAST:
        raise NotCapturable("autocast", "a region of autocast in forward")
    if name in _MODES:
        raise NotCapturable("mode", name)
    raise NotCapturable("target", f"{getattr(function, '__module__', '')}.{name}"[:MAX_TEXT])


def _argument(value: Any, names: Mapping[fx.Node, str]) -> Any:
    if isinstance(value, fx.Node):
        if value not in names:
            raise NotCapturable("constant", f"the result of {value.name}")
        return {"ref": names[value]}
    return plain(value, lambda item: _argument(item, names), "constant")


def structure(
    value: Any, names: Mapping[int, str], unknown: Callable[[torch.Tensor], str] | None = None
) -> Any:
    """What forward takes or returns, with references for its tensors. unknown: names a tensor without one."""
    if isinstance(value, torch.Tensor):
        name = names.get(id(value)) or (unknown(value) if unknown else None)
        assert name is not None
        return {"ref": name}
    if isinstance(value, dict):
        return {"dict": {str(key)[:MAX_TEXT]: structure(v, names, unknown) for key, v in value.items()}}
    return plain(value, lambda item: structure(item, names, unknown), "output")


def plain(value: Any, inner: Callable[[Any], Any], kind: str) -> Any:
    """Plain data as the record writes it. kind: of the refusal where it is anything else."""
    match value:
        case None | bool():
            return value
        case int() if abs(value) <= MAX_INT:
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        case str() if len(value) <= MAX_TEXT:
            return str(value)
        case complex():
            return {"complex": [value.real, value.imag]}
        case slice():
            return {"slice": [inner(part) for part in (value.start, value.stop, value.step)]}
        case tuple():
            return {"tuple": [inner(item) for item in value]}
        case list():
            return [inner(item) for item in value]
        case torch.dtype() if (name := str(value).removeprefix("torch.")) in DTYPES:
            return {"dtype": name}
        case torch.device() if value.type in ("cpu", "cuda"):
            return {"device": str(value)}
        case torch.layout() if (name := str(value).removeprefix("torch.")) in LAYOUTS:
            return {"layout": name}
        case torch.memory_format() if (name := str(value).removeprefix("torch.")) in MEMORY_FORMATS:
            return {"memory_format": name}
    if value is Ellipsis:
        return {"ellipsis": True}
    raise NotCapturable(kind, f"{type(value).__module__}.{type(value).__qualname__}")
