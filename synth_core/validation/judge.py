"""From raw evidence to a verdict, in a process that no program ever ran in.

Pure functions. What the supervisor itself saw (timeout, memory, crash, violation) is judged before these are
asked. The checks are asked in the order of checks.py; the first that fails and is not switched off decides.
Evidence that is incomplete, or not what probe.py writes, is a failure: the program may have written it.

    request key    meaning
    source, name   as for the probe
    requested      catalog names that the captured graph must hold
    skip           names of checks that are switched off
    reject_rules   contract rules that reject; None for the default ones
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from synth_core.errors import UsageError
from synth_core.operators import catalog
from synth_core.records import Category, Graph, Node, Stage
from synth_core.validation import contract, degeneracy
from synth_core.validation.checks import CHECKS
from synth_core.validation.evidence import Evidence
from synth_core.validation.failures import categorise, one_line
from synth_core.validation.tolerance import Tolerance, agrees, difference, tolerance_for

Request = Mapping[str, Any]
Fields = dict[str, Any]
"""The fields of a `Verdict`, but for stage, tier and torch, and under `graph` those of a `Graph` or None."""

MAX_DETAIL = 1000
MAX_NODES = 10_000
"""More than any program of a megabyte of text makes: the graph goes into the ledger."""
MAX_ARGUMENTS = 10_000

_MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    RuntimeError,
    OverflowError,
    UsageError,
)


def judge_eager(request: Request, evidence: Evidence) -> Fields:
    """The verdict of the stage validate-eager, with the captured graph."""
    rules = contract.check_contract(request["source"], request["name"])
    return _judge(
        request, rules, (evidence,), Stage.VALIDATE_EAGER, lambda: _eager_run(request, rules, evidence)
    )


def judge_compiled(request: Request, eager: Evidence, compiled: Evidence) -> Fields:
    """The verdict of the stage validate-compile; `eager` is the evidence of a brief run, same seed."""
    rules = {} if "full_graph" in request.get("skip", ()) else {contract.ONE_GRAPH.name: True}
    return _judge(
        request, rules, (eager, compiled), Stage.VALIDATE_COMPILE, lambda: _compiled_run(eager, compiled)
    )


@dataclass
class Run:
    """Evidence that has the form it should have. What checks measure on the way goes to `measured`."""

    outputs: list[torch.Tensor]
    tolerances: list[Tolerance]
    reference: list[torch.Tensor]
    again: list[torch.Tensor] = field(default_factory=list)
    rebuilt: list[torch.Tensor] = field(default_factory=list)
    compiled: list[torch.Tensor] = field(default_factory=list)
    nodes: tuple[Node, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    effects: dict[str, Any] = field(default_factory=dict)
    contract: dict[str, bool] = field(default_factory=dict)
    rejecting: frozenset[str] = frozenset()
    requested: tuple[str, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def allowed(self) -> float:
        """The share of elements that may move without counting as a change."""
        return max(tolerance.outliers for tolerance in self.tolerances)


def _judge(
    request: Request,
    rules: dict[str, bool],
    evidences: Sequence[Evidence],
    stage: Stage,
    read: Callable[[], Run],
) -> Fields:
    skip = frozenset(request.get("skip", ()))
    checks = [check for check in CHECKS if check.stage is stage]
    skipped = tuple(check.name for check in checks if check.name in skip)
    fields: Fields = {"contract": rules, "skipped": skipped, "graph": None}
    try:
        for evidence in evidences:
            if not evidence.complete:
                return _fail(fields, "runs", Category.CRASH, _incomplete(evidence))
            if "error" in evidence.values:
                return _raised(fields, evidence.json("error"))
        run = read()
        fields["contract"] = run.contract or rules
        if run.nodes:
            operators = tuple(node.operator for node in run.nodes if node.operator)
            fields["graph"] = Graph(nodes=run.nodes, operators=operators).model_dump(mode="json")
        fields |= {"measured": run.measured, "warnings": ()}
        for check in checks:
            if check.name in _ASK and check.name not in skip:
                detail = _ASK[check.name](run)
                fields["warnings"] = tuple(run.warnings)
                if detail:
                    assert check.category is not None
                    return _fail(fields, check.name, check.category, detail)
    except _MALFORMED as error:
        detail = f"the evidence is not what the probe writes ({type(error).__name__}: {str(error)[:200]})"
        return _fail(fields, "runs", Category.CRASH, detail)
    return fields | {"passed": True}


def _eager_run(request: Request, rules: dict[str, bool], evidence: Evidence) -> Run:
    nodes = _nodes(evidence.json("graph"))
    facts, effects = evidence.json("facts"), evidence.json("effects")
    outputs = _tensors(evidence, "output")
    run = Run(
        outputs=outputs,
        tolerances=[tolerance_for(t.dtype, (node.target for node in nodes)) for t in outputs],
        reference=_tensors(evidence, "reference"),
        again=_tensors(evidence, "again"),
        rebuilt=_tensors(evidence, "rebuilt"),
        nodes=nodes,
        facts=facts,
        effects=effects,
        contract=rules | contract.check_run(request["source"], request["name"], facts, effects, nodes),
        rejecting=contract.resolve_rules(request.get("reject_rules")),
        requested=tuple(request.get("requested", ())),
    )
    run.measured["tolerance"] = [tolerance.describe() for tolerance in run.tolerances]
    if not run.reference:
        reason = evidence.values.get("reference_error", {}).get("message", "switched off")
        run.measured["no_reference"] = one_line(str(reason))[:200]
    return run


def _compiled_run(eager: Evidence, compiled: Evidence) -> Run:
    outputs = _tensors(eager, "output")
    targets = [str(node.get("target", "")) for node in eager.json("graph")]
    run = Run(
        outputs=outputs,
        tolerances=[tolerance_for(t.dtype, targets) for t in outputs],
        reference=_tensors(eager, "reference"),
        compiled=_tensors(compiled, "compiled"),
    )
    run.measured["tolerance"] = [tolerance.describe() for tolerance in run.tolerances]
    return run


def _nodes(graph: Any) -> tuple[Node, ...]:
    """The captured graph; ValueError where it is forged: its operators become a file name."""
    if len(graph) > MAX_NODES:
        raise ValueError(f"a graph of {len(graph)} nodes")
    json.dumps(graph, ensure_ascii=False).encode()  # no halves of surrogate pairs: the ledger is UTF-8
    nodes = tuple(Node.model_validate(node) for node in graph)
    for node in nodes:
        if node.operator and not _in_catalog(node.operator):
            raise ValueError(f"no operator is called {node.operator!r}")
        if len(node.arguments) > MAX_ARGUMENTS or len(node.inputs) > MAX_NODES:
            raise ValueError(f"the arguments of {node.name!r} are too long")
    return nodes


def _tensors(evidence: Evidence, name: str) -> list[torch.Tensor]:
    """`name.0`, `name.1`, … as far as they go."""
    found: list[torch.Tensor] = []
    while f"{name}.{len(found)}" in evidence.tensors:
        found.append(evidence.tensor(f"{name}.{len(found)}"))
    return found


def _fail(fields: Fields, check: str, category: Category, detail: str) -> Fields:
    fields |= {"passed": False, "check": check, "category": category.value}
    return fields | {"detail": one_line(detail)[:MAX_DETAIL]}


def _incomplete(evidence: Evidence) -> str:
    tail = evidence.observed.output.strip().splitlines()[-1:]
    return "the process ended without saying all it should" + (
        f"; it printed: {tail[0][:300]}" if tail else ""
    )


def _raised(fields: Fields, error: Mapping[str, Any]) -> Fields:
    check, category, detail = categorise(error)
    if category is Category.GRAPH_BREAK:
        fields["contract"] = {contract.ONE_GRAPH.name: False}
    return _fail(fields, check, category, detail)


# One function for each check: "" where it holds, else one line.


def _shapes(run: Run) -> str:
    for position, output in enumerate(run.outputs):
        if not output.numel():
            return f"output {position} has no elements, shape {list(output.shape)}"
    for name, others in (("second", run.again), ("rebuilt", run.rebuilt)):
        if others and _signature(others) != _signature(run.outputs):
            return f"a {name} run returns {_signature(others)}, the first {_signature(run.outputs)}"
    return ""


def _finite(run: Run) -> str:
    for name in ("inputs", "weights"):
        if not run.facts[f"finite_{name}"]:
            return f"the {name} hold NaN or infinity"
    return _not_finite(run.outputs, "output")


def _not_finite(tensors: Sequence[torch.Tensor], name: str) -> str:
    for position, tensor in enumerate(tensors):
        bad = int((~tensor.isfinite()).sum())
        if bad:
            return f"{name} {position}: {bad} of {tensor.numel()} elements are NaN or infinite"
    return ""


def _deterministic(run: Run) -> str:
    for name, others in (("a second run", run.again), ("a fresh instance", run.rebuilt)):
        for position, (output, other) in enumerate(zip(run.outputs, others, strict=True)):
            if output.shape != other.shape or not torch.equal(_bits(output), _bits(other)):
                return f"output {position}: {name} from the same seed gives other bits"
    return ""


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _reference(run: Run) -> str:
    return _compare(run, run.outputs, run.reference, "eager_vs_fp64", "reference")


def _compiled_reference(run: Run) -> str:
    return _compare(run, run.compiled, run.reference, "compiled_vs_fp64", "compiled_reference")


def _agreement(run: Run) -> str:
    return _compare(run, run.compiled, run.outputs, "compiled_vs_eager", "")


def _compare(
    run: Run, values: Sequence[torch.Tensor], references: Sequence[torch.Tensor], name: str, warning: str
) -> str:
    """`warning` names the check that a missing reference leaves undecided."""
    if warning and not references:
        run.warnings.append(warning)
        return ""
    found = [
        difference(value, reference, tolerance)
        for value, reference, tolerance in zip(values, references, run.tolerances, strict=True)
    ]
    run.measured[name] = [one.describe() for one in found]
    for position, (one, tolerance) in enumerate(zip(found, run.tolerances, strict=True)):
        if not agrees(one, tolerance):
            return (
                f"output {position}, {name.replace('_', ' ')}: {one.share:.2%} of elements beyond"
                f" rtol {tolerance.rtol:g}, atol {tolerance.atol:g} of scale {one.scale:.3g};"
                f" worst {one.worst:.3g} times the limit"
            )
    return ""


def _operators_matter(run: Run) -> str:
    if degeneracy.idle_operators(run.effects["units"], run.allowed):
        run.warnings.append("operators_matter")
    return degeneracy.redundant_operators(run.effects["units"], run.allowed)


def _operators(run: Run) -> str:
    realised = [node.operator for node in run.nodes if node.operator]
    unknown = [name for name in run.requested if not _in_catalog(name)]
    missing = [*unknown, *catalog.missing((n for n in run.requested if n not in unknown), realised)]
    return (
        f"not in the captured graph: {', '.join(missing)}; realised: {', '.join(realised)}" if missing else ""
    )


def _in_catalog(name: str) -> bool:
    """A file from elsewhere may be named after anything."""
    try:
        catalog.find(name)
    except UsageError:
        return False
    return True


def _contract(run: Run) -> str:
    broken = [name for name, holds in run.contract.items() if not holds]
    run.warnings += [name for name in broken if name not in run.rejecting]
    says = {rule.name: rule.says for rule in contract.RULES}
    return "; ".join(f"{name} ({says[name]})" for name in broken if name in run.rejecting)


def _compiled_shapes(run: Run) -> str:
    if _signature(run.compiled) != _signature(run.outputs):
        return f"compiled returns {_signature(run.compiled)}, eager {_signature(run.outputs)}"
    return ""


def _signature(tensors: Sequence[torch.Tensor]) -> str:
    return ", ".join(f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in tensors)


_ASK: dict[str, Callable[[Run], str]] = {
    "shapes": _shapes,
    "finite": _finite,
    "deterministic": _deterministic,
    "magnitude": lambda run: degeneracy.without_magnitude(run.outputs),
    "not_zero": lambda run: degeneracy.passes_as_zero(run.outputs, run.tolerances),
    "varies": lambda run: degeneracy.without_variation(run.outputs),
    "inputs_matter": lambda run: degeneracy.blind_to_inputs(run.effects["inputs"], run.allowed),
    "weights_matter": lambda run: degeneracy.blind_to_weights(run.effects["weights"], run.allowed),
    "operators_matter": _operators_matter,
    "reference": _reference,
    "operators": _operators,
    "contract": _contract,
    "compiled_shapes": _compiled_shapes,
    "compiled_finite": lambda run: _not_finite(run.compiled, "compiled output"),
    "agreement": _agreement,
    "compiled_reference": _compiled_reference,
}
