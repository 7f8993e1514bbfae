"""The eager stage: run the graph in several ways, and measure what the checks need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synth_core.graph.nodes import Unit, nodes_of, units_of
from synth_core.graph.rebuild import arguments, measured
from synth_core.graph.record import GraphRecord, references
from synth_core.validation.evidence import digest
from synth_core.validation.judge.proofs import Run
from synth_core.validation.prover import disturb
from synth_core.validation.prover.case import Case
from synth_core.validation.prover.disturb import Comparison
from synth_core.validation.prover.running import Graph, Outputs
from synth_core.validation.tolerance import tolerance_for

Request = Mapping[str, Any]

VARIANTS = ((False, 1.0), (True, 4.0))
"""If an operator has no effect, it is measured again at other values. Each entry says whether the numbers of
the text are changed, and how far the inputs reach (disturb.Comparison.elsewhere)."""


def run(request: Request, case: Case, skip: frozenset[str]) -> Run:
    """Measure a case. Raises what the graph raises."""
    seed = int(request["seed"])
    graph, found = started(case, seed)
    record, outputs, nodes = graph.record, found.outputs, found.nodes
    found.facts = facts(case, record)
    found.effects["random"] = not disturb.same(outputs, graph(case.tensors, seed=seed + 1))
    if "deterministic" not in skip:
        found.again = graph(case.tensors)
        found.text, found.repeats = case.plain, case.again
        found.foreign = foreign_digests(case)
    if "faithful" not in skip:
        found.plain, found.traced = compared(case, graph, outputs)
    compare = Comparison(graph, case.tensors, outputs, found.tolerances, seed + 1, _state(case))
    if "inputs_matter" not in skip:
        named = zip(case.inputs, case.others, strict=True)
        found.effects["inputs"] = {
            leaf.path: compare.input(leaf.name, position, other)
            for position, (leaf, other) in enumerate(named)
        }
    if "weights_matter" not in skip:
        paths = {leaf.name: leaf.path for leaf in record.of_kind("parameter")}
        live = {node.name for node in nodes if node.kind == "parameter"}  # for the others there is a rule
        found.effects["weights"] = {
            f"self.{paths[name]}": compare.parameter(name, position)
            for position, name in enumerate(case.state("parameter"))
            if f"self.{paths[name]}" in live
        }
    if "operators_matter" not in skip:
        varied = _varied(request, record, case)
        found.effects["units"] = _effects_of_units(case, units_of(record), compare, varied)
    return found


def started(case: Case, seed: int) -> tuple[Graph, Run]:
    """The graph with what its calls return, and its outputs. Both stages begin so."""
    record, _ = measured(case.record, case.module(), arguments(case.record, case.tensors))
    graph = Graph(record, case.module(record), seed, case.most)
    outputs = graph(case.tensors)
    nodes = nodes_of(record)
    targets = [node.target for node in nodes]
    tolerances = [tolerance_for(tensor.dtype, targets) for tensor in outputs]
    return graph, Run(outputs=outputs, tolerances=tolerances, nodes=nodes)


def compared(case: Case, graph: Graph, outputs: Outputs) -> tuple[list[Outputs], list[Outputs]]:
    """Outputs of the text, and those of the graph, on the program's own inputs and on each draw."""
    names = [leaf.name for leaf in case.inputs]
    traced = [graph({**case.tensors, **dict(zip(names, draw, strict=True))}) for draw in case.draws]
    if case.brief:
        return case.drawn, [[tensor.cpu() for tensor in one] for one in traced]
    return [case.plain, *case.drawn], [outputs, *traced]


def facts(case: Case, record: GraphRecord) -> dict[str, Any]:
    """What the rules of the contract need to know of a run (contract.py)."""
    inputs = {leaf.name: leaf for leaf in case.inputs}
    returned = list(references(record.output))
    memory = {record.memory[name] for name in inputs if name in record.memory}
    state = [case.tensors[name] for kind in ("parameter", "buffer") for name in case.state(kind)]
    return {
        "structure": _structure(record.output),
        "init_inputs_are_a_pair": bool(case.facts["init_inputs_are_a_pair"]),
        "inputs_are_flat": bool(case.facts["inputs_are_flat"]),
        "inputs": [list(leaf.shape) for leaf in case.inputs],
        "parameters": [[f"self.{leaf.path}", list(leaf.shape)] for leaf in record.of_kind("parameter")],
        "returned": any(name in inputs for name in returned),
        "shares_memory": any(number in memory for number in _memory(record, returned)),
        "side_effects": list(record.side_effects),
        "finite_inputs": all(bool(case.tensors[name].isfinite().all()) for name in inputs),
        "finite_weights": all(bool(tensor.isfinite().all()) for tensor in state),
    }


def _memory(record: GraphRecord, names: Sequence[str]) -> list[int]:
    """The numbers of the memory of the values with these names."""
    results = {call.name: call.results or () for call in record.calls}
    found = []
    for name in names:
        if name in record.memory:
            found.append(record.memory[name])
        found += [result.memory for result in results.get(name, ()) if result is not None]
    return found


def _structure(output: Any) -> str:
    match output:
        case {"ref": str()}:
            return "tensor"
        case {"tuple": items} if all(isinstance(item, dict) and "ref" in item for item in items):
            return "tuple"
    return "other"


def _state(case: Case) -> frozenset[str]:
    return frozenset((*case.state("parameter"), *case.state("buffer")))


def foreign_digests(case: Case) -> dict[str, tuple[str, str]]:
    """Name of a tensor -> its digest in the process that repeated the text, and in the one that captured."""
    if not case.repeated:
        return {}
    outputs = list(case.repeated["output"])
    state = dict(case.repeated["state"])
    found = {
        f"output {position}": (str(outputs[position]) if position < len(outputs) else "", digest(tensor))
        for position, tensor in enumerate(case.plain)
    }
    for kind in ("parameter", "buffer"):
        for leaf in case.record.of_kind(kind):
            if leaf.name in case.tensors:
                found[leaf.path] = (str(state.get(leaf.path, "")), digest(case.tensors[leaf.name]))
    return found


def _effects_of_units(
    case: Case, units: Sequence[Unit], compare: Comparison, varied: Callable[[], Graph]
) -> list[tuple[str, str, float, float]]:
    """For each operator: its name, how it was changed, the share that moved here, and at other values.

    Other values are tried only if nothing moves here.
    """
    still = max(tolerance.outliers for tolerance in compare.tolerances)
    here = [compare.operator(unit) for unit in units]
    there = [share for share, _ in here]
    inputs = [leaf.name for leaf in case.inputs]
    for vary, reach in VARIANTS:
        if min(there, default=1.0) > still:
            break
        try:  # a graph may raise with other numbers or other inputs
            other = compare.elsewhere(varied() if vary else compare.graph, inputs, reach)
        except disturb.EXHAUSTED:
            raise
        except Exception:
            continue
        there = [
            share if share > still else other.operator(unit)[0]
            for share, unit in zip(there, units, strict=True)
        ]
    return [
        (unit.operator, how, share, elsewhere)
        for unit, (share, how), elsewhere in zip(units, here, there, strict=True)
    ]


def _varied(request: Request, record: GraphRecord, case: Case) -> Callable[[], Graph]:
    """The graph with every number that the text gives to its class changed by a quarter.

    The reason: a factor of 1.0 does not make the multiplication redundant.
    """
    numbers = frozenset(request["numbers"])

    def vary(value: Any) -> Any:
        match value:
            case float() if value in numbers:
                return value * 1.25 or 0.25
            case list() | tuple():
                return [vary(item) for item in value]
            case dict():
                return {key: vary(item) for key, item in value.items()}
        return value

    def build() -> Graph:
        calls = tuple(
            call.model_copy(update={"args": tuple(vary(call.args)), "kwargs": vary(call.kwargs)})
            for call in record.calls
        )
        other = record.model_copy(update={"calls": calls})
        return Graph(other, case.module(other), int(request["seed"]), case.most)

    return build
