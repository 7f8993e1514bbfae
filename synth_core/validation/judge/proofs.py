"""One function for each check: "" if it holds for a run, else one line that says what is wrong.

prover/decide.py asks the functions in PROOFS, in the order of checks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from synth_core.errors import UsageError
from synth_core.operators import catalog
from synth_core.records import Node
from synth_core.validation import contract
from synth_core.validation.judge import degeneracy
from synth_core.validation.tolerance import Tolerance, agrees, difference


@dataclass
class Run:
    """What a prover measured of one program. What the checks measure in addition goes to `measured`."""

    outputs: list[torch.Tensor]
    tolerances: list[Tolerance]
    reference: list[torch.Tensor] = field(default_factory=list)
    again: list[torch.Tensor] = field(default_factory=list)
    text: list[torch.Tensor] = field(default_factory=list)
    repeats: list[torch.Tensor] = field(default_factory=list)
    """Outputs of the text on its own inputs: `text` from its first run, `repeats` from its last."""
    foreign: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name of an output, parameter or buffer -> its digest in another process, and in the first."""
    plain: list[list[torch.Tensor]] = field(default_factory=list)
    """Outputs of the text on each set of inputs; `traced`: those of the graph."""
    traced: list[list[torch.Tensor]] = field(default_factory=list)
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


def in_catalog(name: str) -> bool:
    """Whether the catalog has this name. A file from elsewhere may have any name."""
    try:
        catalog.find(name)
    except UsageError:
        return False
    return True


def _shapes(run: Run) -> str:
    for position, output in enumerate(run.outputs):
        if not output.numel():
            return f"output {position} has no elements, shape {list(output.shape)}"
    for others in (run.text, *run.plain, run.repeats):
        if others and _signature(others) != _signature(run.outputs):
            return f"a run of the text returns {_signature(others)}, its graph {_signature(run.outputs)}"
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
    for name, (other, own) in run.foreign.items():
        if other != own:
            return f"{name} has other bits in another process"
    for name, ones, others in (
        ("a second run of the graph", run.outputs, run.again),
        ("a later run of the text", run.text, run.repeats),
    ):
        for position, (output, later) in enumerate(zip(ones, others, strict=True)):
            if not _same_bits(output, later):
                return f"output {position}: {name} from the same seed gives other bits"
    return ""


def _same_bits(output: torch.Tensor, other: torch.Tensor) -> bool:
    return output.shape == other.shape and torch.equal(_bits(output), _bits(other))


def _faithful(run: Run) -> str:
    """On every set of inputs, text and graph give the same. Rounding may differ, because kernels may."""
    equal = True
    for place, (plain, traced) in enumerate(zip(run.plain, run.traced, strict=True)):
        which = "its own inputs" if place == 0 and run.text else f"draw {place}"
        if _signature(plain) != _signature(traced):
            return f"on {which} the text returns {_signature(plain)}, its graph {_signature(traced)}"
        for position, (value, other) in enumerate(zip(plain, traced, strict=True)):
            if _same_bits(value, other):
                continue
            equal = False
            found = difference(value, other, run.tolerances[position])
            if not agrees(found, run.tolerances[position]):
                return (
                    f"output {position}: on {which} the text and its graph differ in {found.share:.2%} of"
                    f" elements; worst {found.worst:.3g} times the limit"
                )
    run.measured["faithful"] = {"runs": len(run.plain), "bit_for_bit": equal}
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
    """warning: the check that a missing reference leaves undecided; "": the references are always there."""
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
    unknown = [name for name in run.requested if not in_catalog(name)]
    missing = [*unknown, *catalog.missing((n for n in run.requested if n not in unknown), realised)]
    return (
        f"not in the captured graph: {', '.join(missing)}; realised: {', '.join(realised)}" if missing else ""
    )


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


PROOFS: dict[str, Callable[[Run], str]] = {
    "shapes": _shapes,
    "finite": _finite,
    "deterministic": _deterministic,
    "faithful": _faithful,
    "magnitude": lambda run: degeneracy.without_magnitude(run.outputs),
    "not_zero": lambda run: degeneracy.passes_as_zero(run.outputs, run.tolerances),
    "varies": lambda run: degeneracy.without_variation(run.outputs),
    "inputs_matter": lambda run: degeneracy.blind_to_inputs(run.effects["inputs"], run.allowed),
    "weights_matter": lambda run: degeneracy.blind_to_weights(run.effects["weights"], run.allowed),
    "operators_matter": _operators_matter,
    "operators": _operators,
    "contract": _contract,
    "compiled_shapes": _compiled_shapes,
    "compiled_finite": lambda run: _not_finite(run.compiled, "compiled output"),
    "reference": _reference,
    "agreement": _agreement,
    "compiled_reference": _compiled_reference,
}
