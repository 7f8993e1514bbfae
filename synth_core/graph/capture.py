"""Capture a module's forward as one record, through Dynamo. Runs beside the program, and compiles nothing.

`torch.compile` gets a backend that keeps the graph and runs it as it is. Each tensor that forward returns is
found by identity: it is one of the graph's outputs, an input, or a tensor of the module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from synth_core.graph import encode
from synth_core.graph.encode import NotCapturable, tensors_in
from synth_core.graph.record import MAX_CALLS, MAX_TEXT, GraphRecord, Layer, Leaf, references
from synth_core.graph.tracing import explained, readable, tracing
from synth_core.operators.catalog import realised_operator

Forward = Callable[..., Any]


@dataclass(frozen=True)
class Captured:
    """tensors: the values of the leaves that the graph reads, and of all inputs, by the leaves' names."""

    record: GraphRecord
    tensors: dict[str, torch.Tensor]


@dataclass
class _Run:
    """What the backend saw. arguments: tensors for the placeholders; saved: the same before the run."""

    graph: fx.GraphModule | None = None
    arguments: tuple[Any, ...] = ()
    saved: list[Any] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)
    results: tuple[Any, ...] = ()


def capture(module: nn.Module, inputs: Sequence[Any], *, execute: bool = True) -> Captured:
    """The graph of `module(*inputs)`, and the tensors that it reads.

    The module and the inputs stay as they are, but for attributes that forward sets. Raises `NotCapturable`
    where Dynamo finds no whole graph (also where forward raises) or the record can't hold it.

    execute: run the graph, too. Without, tensors with no values stand for its results; that is quicker where
        they are large, and an error that depends on values is not seen.
    """
    given = encode.copies(inputs)
    for tensor in (*tensors_in(given), *module.parameters(), *module.buffers()):
        encode.check_plain(tensor)
    run, effects = _Run(), list[str]()
    with torch.no_grad(), torch.random.fork_rng(devices=[]), tracing(effects):
        try:
            output = torch.compile(module, backend=_backend(run, execute), fullgraph=True, dynamic=False)(
                *given
            )
        except Exception as error:
            raise explained(error) from error
        finally:
            for tensor, value in zip(run.arguments, run.saved, strict=False):
                if isinstance(tensor, torch.Tensor) and tensor._version != run.versions[id(tensor)]:
                    tensor.copy_(value)
            torch._dynamo.reset()
    return _Writer(module, given, inputs, run).captured(output, effects)


def _backend(run: _Run, executes: bool) -> Callable[[fx.GraphModule, list[Any]], Forward]:
    def compile_nothing(graph: fx.GraphModule, examples: list[Any]) -> Forward:
        if run.graph is not None:
            raise NotCapturable("several_graphs", "forward was traced more than once")
        run.graph = graph
        encode.check_graph(graph)

        def execute(*arguments: Any) -> tuple[Any, ...]:
            run.saved = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in arguments]
            run.versions = {id(a): a._version for a in arguments if isinstance(a, torch.Tensor)}
            run.arguments = arguments
            run.results = graph(*arguments) if executes else _stand_ins(graph, arguments)
            return run.results

        return execute

    return compile_nothing


def _stand_ins(graph: fx.GraphModule, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the graph returns, as tensors of those shapes with no values; arguments stand for themselves."""
    nodes = list(graph.graph.nodes)
    own = dict(zip((node for node in nodes if node.op == "placeholder"), arguments, strict=False))

    def stand_in(node: Any) -> Any:
        if node in own or not isinstance(node, fx.Node):
            return own.get(node, node)
        value = node.meta["example_value"]
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)

    (outputs,) = nodes[-1].args
    return tuple(stand_in(node) for node in outputs)


class _Writer:
    """Turns what the backend saw into a record."""

    def __init__(self, module: nn.Module, given: list[Any], inputs: Sequence[Any], run: _Run) -> None:
        self._module = module
        self._run = run
        self._names: dict[int, str] = {}  # id of a tensor -> the value that it is
        self._leaves: list[Leaf] = []
        self._tensors: dict[str, torch.Tensor] = {}
        self._objects: dict[str, torch.Tensor] = {}
        self._layers: dict[tuple[str, ...], int] = {}
        self._claims: list[Layer] = []
        pristine = tensors_in(encode.copies(inputs))
        for (path, tensor), value in zip(encode.paths_of(given), pristine, strict=True):
            self._leaf("input", path, tensor, value)
        self._arguments = encode.structure(tuple(given), self._names)
        self._state("parameter", module.named_parameters(remove_duplicate=False))
        self._state("buffer", module.named_buffers(remove_duplicate=False))

    def _state(self, kind: Any, named: Iterator[tuple[str, torch.Tensor]]) -> None:
        paths: dict[int, list[str]] = {}
        tensors: dict[int, torch.Tensor] = {}
        for path, tensor in named:
            paths.setdefault(id(tensor), []).append(path)
            tensors[id(tensor)] = tensor
        for key, (path, *aliases) in paths.items():
            if key not in self._names:
                self._leaf(kind, path, tensors[key], None, tuple(aliases))

    def _leaf(
        self,
        kind: Any,
        path: str,
        tensor: torch.Tensor,
        value: torch.Tensor | None,
        aliases: tuple[str, ...] = (),
    ) -> str:
        """A leaf for `tensor`; value: what it holds before the run, where the graph reads it."""
        encode.check_plain(tensor)
        name = f"{kind}_{sum(leaf.kind == kind for leaf in self._leaves)}"
        self._leaves.append(
            Leaf(
                name=name,
                kind=kind,
                path=path[:500],
                aliases=aliases,
                shape=tuple(tensor.shape),
                stride=torch.empty_like(tensor, device="meta").stride(),
                dtype=encode.dtype_name(tensor.dtype),
                requires_grad=tensor.requires_grad,
            )
        )
        self._names[id(tensor)] = name
        self._objects[name] = tensor
        if value is not None:
            self._tensors[name] = value
        return name

    def captured(self, output: Any, effects: list[str]) -> Captured:
        graph = self._run.graph
        nodes = list(graph.graph.nodes) if graph is not None else []
        if len(nodes) > MAX_CALLS:
            raise NotCapturable("too_large", f"{len(nodes)} calls; at most {MAX_CALLS}")
        names: dict[fx.Node, str] = {}
        placeholders = [node for node in nodes if node.op == "placeholder"]
        for node, tensor, value in zip(placeholders, self._run.arguments, self._run.saved, strict=False):
            names[node] = self._bound(node, tensor, value)
        for node in nodes:
            if node.op == "get_attr":
                tensor = encode.attribute(graph, node)
                names[node] = self._bound(node, tensor, tensor.detach().clone())
        read = list(names.values())
        calls = encode.calls(nodes, names, {leaf.name for leaf in self._leaves}, self._layer)
        self._name_results(nodes, names)
        returned = encode.structure(output, self._names, self._unbound)
        handed_on = [leaf.name for leaf in self._leaves if leaf.name in references(returned)]
        record = GraphRecord(
            torch=torch.__version__.partition("+")[0],
            leaves=tuple(self._leaves),
            arguments=self._arguments,
            placeholders=tuple(dict.fromkeys((*read, *handed_on))),
            calls=calls,
            output=returned,
            layers=tuple(self._claims),
            side_effects=tuple(dict.fromkeys(effects)),
        )
        needed = dict.fromkeys((*(leaf.name for leaf in record.of_kind("input")), *record.placeholders))
        return Captured(record, {name: self._value(name) for name in needed})

    def _value(self, name: str) -> torch.Tensor:
        """What a leaf held before the run; one that the graph does not read can't have changed."""
        value = self._tensors.get(name)
        return self._objects[name].detach().clone() if value is None else value

    def _bound(self, node: fx.Node, tensor: Any, value: Any) -> str:
        """The leaf that a placeholder stands for; a tensor that is none yet is a constant."""
        if not isinstance(tensor, torch.Tensor):
            raise NotCapturable("scalar", f"the graph reads a {type(tensor).__name__}: {node.name}")
        name = self._names.get(id(tensor))
        if name is None:
            source = getattr(node, "_dynamo_source", None)
            where = getattr(source, "name", node.target)
            return self._leaf("constant", readable(str(where() if callable(where) else where)), tensor, value)
        self._tensors.setdefault(name, value)
        return name

    def _unbound(self, tensor: torch.Tensor) -> str:
        """A tensor of the module that forward hands out as it is, and that the graph never saw."""
        for path, part in self._module.named_modules():
            for name, value in vars(part).items():
                if any(tensor is own for own in tensors_in(value)):
                    place = f"self.{path}.{name}" if path else f"self.{name}"
                    return self._leaf("constant", place, tensor, tensor.detach().clone())
        raise NotCapturable("output", "a tensor made outside of the graph, such as x.T of an input")

    def _name_results(self, nodes: list[fx.Node], names: dict[fx.Node, str]) -> None:
        """Each tensor that the graph returned, by the value it is. Inputs and parameters keep their names."""
        if not nodes:
            return
        (outputs,) = nodes[-1].args
        for node, tensor in zip(outputs, self._run.results, strict=True):  # type: ignore[arg-type]
            if isinstance(node, fx.Node) and isinstance(tensor, torch.Tensor):
                self._names.setdefault(id(tensor), names[node])

    def _layer(self, node: fx.Node) -> int | None:
        """The outermost layer of torch.nn that this call belongs to, one entry for each call of the layer."""
        above: tuple[str, ...] = ()
        for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items():
            above = (*above, key, path)
            name = f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)
            if realised_operator(name):
                if above not in self._layers:
                    self._layers[above] = len(self._claims)
                    where = readable(path).removeprefix("self.")[:500]
                    self._claims.append(Layer(path=where, kind=name[:MAX_TEXT]))
                return self._layers[above]
        return None
