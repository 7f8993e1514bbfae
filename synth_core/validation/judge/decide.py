"""From raw evidence to a verdict, in a process that no program ever ran in.

Pure functions. What the supervisor itself saw (timeout, memory, crash, violation) is judged before these are
asked. The checks are asked in the order of checks.py; the first that fails and is not switched off decides.
Evidence that is incomplete, or not what probe.py writes, is a failure: the program may have written it.

    request key    meaning
    source, name   as for the probe
    requested      catalog names that the captured graph must hold
    skip           names of checks that are switched off
    reject_rules   contract rules that reject; left out: the default ones
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from synth_core.errors import UsageError
from synth_core.records import Category, Graph, Node, Stage
from synth_core.validation import contract
from synth_core.validation.checks import CHECKS
from synth_core.validation.evidence import Evidence
from synth_core.validation.judge.failures import categorise, one_line
from synth_core.validation.judge.proofs import PROOFS, Run, in_catalog
from synth_core.validation.tolerance import tolerance_for

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
            if check.name in PROOFS and check.name not in skip:
                detail = PROOFS[check.name](run)
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
        again=_tensors(evidence, "again"),
        nodes=nodes,
        facts=facts,
        effects=effects,
        contract=rules | contract.check_run(request["source"], request["name"], facts, effects, nodes),
        rejecting=frozenset(request.get("reject_rules", contract.DEFAULT_REJECT_RULES)),
        requested=tuple(request.get("requested", ())),
    )
    run.measured["tolerance"] = [tolerance.describe() for tolerance in run.tolerances]
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
    if not run.reference:
        reason = eager.values.get("reference_error", {}).get("message", "")
        run.measured["no_reference"] = one_line(str(reason))[:200]
    return run


def _nodes(graph: Any) -> tuple[Node, ...]:
    """The captured graph; ValueError where it is forged: its operators become a file name."""
    if len(graph) > MAX_NODES:
        raise ValueError(f"a graph of {len(graph)} nodes")
    json.dumps(graph, ensure_ascii=False).encode()  # no halves of surrogate pairs: the ledger is UTF-8
    nodes = tuple(Node.model_validate(node) for node in graph)
    for node in nodes:
        if node.operator and not in_catalog(node.operator):
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
