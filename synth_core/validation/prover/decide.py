"""From a case to the judgement of a stage.

The checks are asked in the order of checks.py. The first that fails and is not switched off decides. If a
case lacks what a child must write, the program fails, because it may have written the case.

    request key    meaning
    rules          contract rule -> holds, for the rules that the text alone decides
    literal_tuple  whether forward returns a tuple that is written out
    numbers        floats that the text gives to its class
    seed           seed of every random draw
    draw_seed      seed of the draws that were made after the capture
    requested      catalog names that the captured graph must hold
    skip           names of checks that are switched off; what only they need is not run
    reject_rules   contract rules that reject; if left out, the default ones
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from synth_core.errors import UsageError
from synth_core.graph.record import BadGraph
from synth_core.records import Category, Graph, Stage
from synth_core.validation import contract
from synth_core.validation.checks import CHECKS
from synth_core.validation.failures import categorise, one_line
from synth_core.validation.judge.proofs import PROOFS, Run
from synth_core.validation.prover.case import Case, Refused

Request = Mapping[str, Any]
Judgement = dict[str, Any]
"""The fields of a `Verdict` except stage, tier and torch; `graph` holds those of a `Graph`, or None."""

MAX_DETAIL = 1000
MAX_MESSAGE = 2000

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, UsageError)


def decide(
    request: Request, stage: Stage, read: Callable[[], Case], measure: Callable[[Case], Run]
) -> Judgement:
    """The judgement of one stage.

    read: returns the case. measure: measures what the checks of the stage need; raises what torch raises.
    """
    skip = frozenset(request.get("skip", ()))
    checks = [check for check in CHECKS if check.stage is stage or check.name == "faithful"]
    fields: Judgement = {
        "contract": {},
        "skipped": tuple(check.name for check in checks if check.name in skip),
        "graph": None,
    }
    if stage is Stage.VALIDATE_EAGER:
        fields["contract"] = dict(request["rules"])
    try:
        case = read()
    except Refused as error:
        return _raised(fields, error.error)
    except BadGraph as error:
        return _fail(fields, "full_graph", Category.CONTRACT_VIOLATION, f"not a graph to be proved: {error}")
    except MALFORMED as error:
        detail = f"the evidence is not what a child writes ({type(error).__name__}: {str(error)[:200]})"
        return _fail(fields, "runs", Category.CRASH, detail)
    try:
        run = measure(case)
    except BadGraph as error:
        return _fail(fields, "full_graph", Category.CONTRACT_VIOLATION, f"not a graph to be proved: {error}")
    except Exception as error:
        phase = "faithful" if stage is Stage.VALIDATE_EAGER else "compiles"
        return _raised(fields, describe(error, phase))
    if stage is Stage.VALIDATE_EAGER:
        _read_contract(request, run, fields)
    fields |= {"measured": run.measured, "warnings": ()}
    for check in checks:
        if check.name in PROOFS and check.name not in skip:
            detail = PROOFS[check.name](run)
            fields["warnings"] = tuple(run.warnings)
            if detail:
                assert check.category is not None
                return _fail(fields, check.name, check.category, detail)
    return fields | {"passed": True}


def _read_contract(request: Request, run: Run, fields: Judgement) -> None:
    rules = contract.check_run(bool(request["literal_tuple"]), run.facts, run.effects, run.nodes)
    run.contract = fields["contract"] = fields["contract"] | rules | {contract.ONE_GRAPH.name: True}
    run.rejecting = frozenset(request.get("reject_rules", contract.DEFAULT_REJECT_RULES))
    run.requested = tuple(request.get("requested", ()))
    operators = tuple(node.operator for node in run.nodes if node.operator)
    fields["graph"] = Graph(nodes=run.nodes, operators=operators).model_dump(mode="json")
    run.measured["tolerance"] = [tolerance.describe() for tolerance in run.tolerances]


def describe(error: Exception, phase: str) -> dict[str, Any]:
    """An exception in the form in which children describe theirs."""
    kinds = [kind.__name__ for kind in type(error).__mro__[:-1]]
    return {"phase": phase, "kinds": kinds, "message": str(error)[:MAX_MESSAGE]}


def _raised(fields: Judgement, error: Mapping[str, Any]) -> Judgement:
    try:
        check, category, detail = categorise(error)
    except MALFORMED:
        return _fail(fields, "runs", Category.CRASH, "the process ended without saying all it should")
    if category is Category.GRAPH_BREAK:
        fields["contract"] = fields["contract"] | {contract.ONE_GRAPH.name: False}
    return _fail(fields, check, category, detail)


def _fail(fields: Judgement, check: str, category: Category, detail: str) -> Judgement:
    fields |= {"passed": False, "check": check, "category": category.value}
    return fields | {"detail": one_line(detail)[:MAX_DETAIL]}
