"""Every check, one row each, in the order in which they are asked.

The first check that fails gives the verdict its category, and `Verdict.check` has its name. Every check can
be switched off (`--skip-check NAME`) except `builds`, `runs`, `full_graph` and `compiles`, which every later
check needs. The function of a check is in judge/proofs.py. The rules of the downstream contract are one check
here, `contract`; the rules are in contract.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from synth_core.errors import UsageError
from synth_core.records import Category, Stage

STATIC = "static"


@dataclass(frozen=True)
class Check:
    """One property that is proved of every accepted program.

    category: that of a failure. None: it depends on the fault (SYNTAX_ERROR or DISALLOWED_IMPORT in the gate,
        SHAPE_ERROR or EXCEPTION for a program that raises).
    skippable: False if every later check needs this one.
    """

    name: str
    stage: Stage
    category: Category | None
    proves: str
    skippable: bool = True


_E, _C = Stage.VALIDATE_EAGER, Stage.VALIDATE_COMPILE

CHECKS: tuple[Check, ...] = (
    Check(STATIC, _E, None, "the text parses, imports only what it may, and has one class"),
    Check("builds", _E, None, "the text executes, the class builds, the inputs are made", skippable=False),
    Check("runs", _E, None, "forward returns tensors in eval mode under no_grad", skippable=False),
    Check("full_graph", _E, Category.GRAPH_BREAK, "torch.compile captures one graph, with no break", False),
    Check("shapes", _E, Category.SHAPE_ERROR, "every output has elements, and the same shape in every run"),
    Check("finite", _E, Category.NON_FINITE, "inputs, weights and outputs hold no NaN and no infinity"),
    Check(
        "deterministic",
        _E,
        Category.NONDETERMINISTIC,
        "runs from one seed, in any process, are bitwise equal",
    ),
    Check(
        "faithful",
        _E,
        Category.NUMERICAL_MISMATCH,
        "the text computes what its graph does, on fresh inputs too",
    ),
    Check("magnitude", _E, Category.DEGENERATE, "outputs are neither negligible nor enormous"),
    Check("not_zero", _E, Category.DEGENERATE, "an answer of zeros would fail the tolerance"),
    Check("varies", _E, Category.DEGENERATE, "no output is constant, along no axis of more than one element"),
    Check("inputs_matter", _E, Category.DEGENERATE, "other values of any floating input change the output"),
    Check("weights_matter", _E, Category.DEGENERATE, "other values of any parameter change the output"),
    Check("operators_matter", _E, Category.DEGENERATE, "removing or disturbing any operator shows outside"),
    Check("operators", _E, Category.OPERATORS_MISSING, "the operators asked for are in the captured graph"),
    Check(
        "contract", _E, Category.CONTRACT_VIOLATION, "every rejecting rule of the downstream contract holds"
    ),
    Check("compiles", _C, Category.COMPILE_ERROR, "Inductor compiles the graph and the result runs", False),
    Check("compiled_shapes", _C, Category.SHAPE_ERROR, "compiled outputs have eager's shapes and dtypes"),
    Check("compiled_finite", _C, Category.NON_FINITE, "compiled outputs are finite"),
    Check("reference", _C, Category.NUMERICAL_MISMATCH, "eager agrees with eager in fp64"),
    Check("agreement", _C, Category.NUMERICAL_MISMATCH, "compiled agrees with eager"),
    Check("compiled_reference", _C, Category.NUMERICAL_MISMATCH, "compiled agrees with eager in fp64"),
)

BY_NAME = {check.name: check for check in CHECKS}


def resolve_skips(names: Iterable[str]) -> frozenset[str]:
    """The names as a set. Raises `UsageError` for an unknown name, or a check that cannot be switched off."""
    skips = frozenset(names)
    known = [check.name for check in CHECKS if check.skippable]
    for name in sorted(skips - set(known)):
        if name in BY_NAME:
            raise UsageError(f"check {name!r} cannot be switched off: every later check needs it")
        raise UsageError(f"unknown check {name!r}{_did_you_mean(name, known)}; known: {', '.join(known)}")
    return skips


def _did_you_mean(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}" if close else ""
