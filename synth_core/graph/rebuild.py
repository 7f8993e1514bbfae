"""A record as an `fx.GraphModule` again, in a process that never runs a program's text. Needs torch.

Only the functions of targets.FUNCTIONS can be called, and only with tensors and plain data. What that leaves
open is size and time: `torch.zeros` makes what it is asked for (vocabulary.ALLOCATING), so the process needs
limits of both. Run `measured` first: it stops at the first call that gives anything but tensors, so that no
chain of calls computes with plain numbers.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.multiprocessing.reductions import StorageWeakRef

from synth_core.graph.encode import tensors_in
from synth_core.graph.record import DTYPES, BadGraph, Call, GraphRecord, Leaf, Result, references
from synth_core.graph.targets import FUNCTIONS
from synth_core.graph.vocabulary import GETTER, IDENTITY, METHOD

_WIDER = {
    "float16": torch.float64,
    "bfloat16": torch.float64,
    "float32": torch.float64,
    "complex32": torch.complex128,
    "complex64": torch.complex128,
}
_WIDER_METHOD = {"float": "double", "half": "double", "bfloat16": "double", "cfloat": "cdouble"}
_MOVES = frozenset({"torch.Tensor.cpu", "torch.Tensor.cuda"})
_FLOAT_TYPES = frozenset(
    f"torch.{place}{name}Tensor" for place in ("", "cuda.") for name in ("Float", "Half", "BFloat16")
)


def rebuild(
    record: GraphRecord,
    tensors: Mapping[str, torch.Tensor],
    *,
    double: bool = False,
    device: torch.device | None = None,
) -> fx.GraphModule:
    """The graph as a module: takes `arguments(record, tensors)`, returns the output's tensors as a tuple.

    Each fx node carries the name of its value in the record as `meta["value"]`.

    double: in double precision: every floating dtype that the graph names becomes float64. Give it
        `doubled` tensors, and run it within `double_by_default()`.
    device: in place of every device that the graph names.
    Raises `BadGraph` where the tensors do not fit the record or a target is not in this version of torch.
    """
    _check_tensors(record, tensors, double)
    graph = fx.Graph()
    built: dict[str, Any] = {}
    read = _Reader(built, double, device)
    for position, name in enumerate(record.placeholders):
        built[name] = graph.placeholder(f"leaf_{position}")
        built[name].meta["value"] = name
    for call in record.calls:
        if device is not None and call.target in _MOVES:
            call = _moved(call)
        args = tuple(read(argument) for argument in call.args)
        kwargs = {key: read(value) for key, value in call.kwargs.items()}
        built[call.name] = graph.create_node(*_operation(call, args, double), kwargs, name=call.name)
        built[call.name].meta["value"] = call.name
    graph.output(tuple(built[name] for name in references(record.output)))
    return fx.GraphModule(torch.nn.Module(), graph, class_name="Rebuilt")


def arguments(record: GraphRecord, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """What the rebuilt graph takes: copies, since a graph may write to its inputs and buffers."""
    leaves = {leaf.name: leaf for leaf in record.leaves}
    copies = ((leaves[name], tensors[name].detach().clone()) for name in record.placeholders)
    return [copy.requires_grad_(leaf.requires_grad and _has_gradient(copy)) for leaf, copy in copies]


def _has_gradient(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def doubled(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors with the floating ones in double precision."""
    wide = {name: _WIDER.get(str(tensor.dtype).removeprefix("torch.")) for name, tensor in tensors.items()}
    return {
        name: tensor if (dtype := wide[name]) is None else tensor.to(dtype)
        for name, tensor in tensors.items()
    }


@contextlib.contextmanager
def double_by_default() -> Iterator[None]:
    """What names no dtype, such as torch.ones(3) or a quotient of integers, is float64 meanwhile."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def laid_out(leaf: Leaf, values: torch.Tensor) -> torch.Tensor:
    """The values (in the order of a contiguous tensor) in the leaf's shape and strides."""
    if values.numel() != _count(leaf.shape):
        raise BadGraph(f"{leaf.name}: {values.numel()} values")
    return empty(leaf, values.dtype, values.device).copy_(values.reshape(leaf.shape))


def empty(leaf: Leaf, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor in the leaf's shape and strides, to be filled. Raises `BadGraph` for another dtype."""
    _check_dense(leaf)
    if dtype is not _DTYPES.get(leaf.dtype):
        raise BadGraph(f"{leaf.name}: values of {dtype}")
    return torch.empty_strided(leaf.shape, leaf.stride, dtype=dtype, device=device)


def measured(
    record: GraphRecord, module: fx.GraphModule, given: Sequence[torch.Tensor]
) -> tuple[GraphRecord, list[torch.Tensor]]:
    """Run the rebuilt graph call by call: the record with what each call returned and wrote, and the outputs.

    Shapes, dtypes and shared memory are then facts of this run, not claims. Raises `BadGraph` where a call
    gives anything but tensors, and what torch raises.
    """
    run = _Measuring(module, record, given)
    with torch.no_grad():
        outputs = list(run.run(*given))
    calls = tuple(call.model_copy(update=run.found.get(call.name, {})) for call in record.calls)
    return record.model_copy(update={"calls": calls, "memory": run.leaves}), outputs


class _Measuring(fx.Interpreter):
    """found: fields of each call. leaves: memory of each leaf that the graph reads."""

    def __init__(self, module: fx.GraphModule, record: GraphRecord, given: Sequence[torch.Tensor]) -> None:
        super().__init__(module)
        self.found: dict[str, dict[str, Any]] = {}
        self._memory: dict[int, int] = {}
        self._held: list[StorageWeakRef] = []  # while a reference lives, no other storage has its address
        self.leaves = {
            name: self._memory_of(value) for name, value in zip(record.placeholders, given, strict=True)
        }

    def run_node(self, n: fx.Node) -> Any:
        if not n.op.startswith("call_"):
            return super().run_node(n)
        self._refuse_tuples(n)
        operands = list(tensors_in(self.fetch_args_kwargs_from_env(n)))
        before = [tensor._version for tensor in operands]
        value = super().run_node(n)
        items = value if isinstance(value, tuple | list) else [value]
        for item in items:
            if item is not None and not isinstance(item, torch.Tensor):
                raise BadGraph(f"{n.meta['value']} gives a {type(item).__name__}")
        written = [t for t, version in zip(operands, before, strict=True) if t._version != version]
        self.found[n.meta["value"]] = {
            "results": () if value is None else tuple(map(self._result, items)),
            "many": items is value,
            "passes": next((m.meta["value"] for m in n.all_input_nodes if self.env[m] is value), None),
            "writes": tuple(dict.fromkeys(map(self._memory_of, written))),
        }
        return value

    def _refuse_tuples(self, n: fx.Node) -> None:
        """Python multiplies and adds tuples too; a graph only takes items out of them."""
        if getattr(n.target, "__module__", "") != "_operator" or n.target is operator.getitem:
            return
        for operand in n.all_input_nodes:
            if not isinstance(self.env[operand], torch.Tensor):
                raise BadGraph(f"{n.meta['value']} is an operator of a {type(self.env[operand]).__name__}")

    def _result(self, item: torch.Tensor | None) -> Result | None:
        if item is None:
            return None
        dtype = str(item.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise BadGraph(f"a tensor of {dtype}")
        return Result(shape=tuple(item.shape), dtype=dtype, memory=self._memory_of(item))

    def _memory_of(self, tensor: torch.Tensor) -> int:
        reference = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        if reference.cdata not in self._memory:
            self._held.append(reference)
            self._memory[reference.cdata] = len(self._memory)
        return self._memory[reference.cdata]


class _Reader:
    """The record's arguments as Python's and fx's."""

    def __init__(self, built: Mapping[str, Any], double: bool, device: torch.device | None) -> None:
        self._built = built
        self._double = double
        self._device = device
        self._tagged: dict[str, Callable[[Any], Any]] = {
            "ref": self._value,
            "tuple": lambda inner: tuple(map(self, inner)),
            "slice": lambda inner: slice(*map(self, inner)),
            "dict": lambda inner: {key: self(item) for key, item in inner.items()},
            "complex": lambda inner: complex(*inner),
            "float": float,
            "dtype": self._dtype,
            "device": lambda inner: self._device or torch.device(inner),
            "layout": _LAYOUTS.__getitem__,
            "memory_format": _MEMORY_FORMATS.__getitem__,
            "ellipsis": lambda inner: Ellipsis,
        }

    def __call__(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self(item) for item in value]
        if isinstance(value, dict):
            ((key, inner),) = value.items()
            return self._tagged[key](inner)
        if self._double and isinstance(value, str) and value in _FLOAT_TYPES:
            return "torch.DoubleTensor"
        return value

    def _value(self, name: str) -> Any:
        if name not in self._built:
            raise BadGraph(f"{name} is read, and is no placeholder")
        return self._built[name]

    def _dtype(self, name: str) -> torch.dtype:
        return (_WIDER.get(name) if self._double else None) or _DTYPES[name]


_LAYOUTS = {"strided": torch.strided}
_MEMORY_FORMATS = {
    "contiguous_format": torch.contiguous_format,
    "preserve_format": torch.preserve_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
}
_DTYPES: dict[str, torch.dtype] = {
    name: dtype for name in DTYPES if isinstance(dtype := getattr(torch, name, None), torch.dtype)
}


def _moved(call: Call) -> Call:
    """x.cpu() and x.cuda() as x.to(device)."""
    return call.model_copy(
        update={"target": "torch.Tensor.to", "args": (*call.args[:1], {"device": "cpu"}), "kwargs": {}}
    )


def _operation(call: Call, args: tuple[Any, ...], double: bool) -> tuple[str, Any, tuple[Any, ...]]:
    """The kind of fx node, what it calls and its positional arguments."""
    target = call.target
    if target not in FUNCTIONS:
        raise BadGraph(f"this torch has no {target}")
    if target == IDENTITY and (len(args) != 1 or call.kwargs or not isinstance(args[0], fx.Node)):
        raise BadGraph("an identity of something else than one value")
    if target.startswith(METHOD):
        if not args or not isinstance(args[0], fx.Node):
            raise BadGraph(f"{target} of something else than a value")
        name = target.removeprefix(METHOD).removesuffix(GETTER)
        if target.endswith(GETTER):
            return "call_function", getattr, (args[0], name)
        return "call_method", _WIDER_METHOD.get(name, name) if double else name, args
    if target.startswith("operator.") and not any(isinstance(arg, fx.Node) for arg in args):
        raise BadGraph(f"{target} of plain data")
    return "call_function", FUNCTIONS[target], args


def _check_tensors(record: GraphRecord, tensors: Mapping[str, torch.Tensor], double: bool) -> None:
    for leaf in record.leaves:
        if leaf.name not in record.placeholders:
            continue
        tensor = tensors.get(leaf.name)
        if tensor is None:
            raise BadGraph(f"no tensor for {leaf.name}")
        wanted = _WIDER.get(leaf.dtype) if double else None
        if tuple(tensor.shape) != leaf.shape or tensor.dtype is not (wanted or _DTYPES.get(leaf.dtype)):
            raise BadGraph(f"{leaf.name}: {tensor.dtype} {tuple(tensor.shape)} for {leaf.dtype} {leaf.shape}")


def _check_dense(leaf: Leaf) -> None:
    """The elements fill their memory without gaps and without overlap."""
    expected = 1
    for size, stride in sorted(zip(leaf.shape, leaf.stride, strict=True), key=lambda pair: pair[::-1]):
        if size == 1:
            continue
        if stride != expected and _count(leaf.shape):
            raise BadGraph(f"{leaf.name}: strides {leaf.stride} for the shape {leaf.shape}")
        expected *= size


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
