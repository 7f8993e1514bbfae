"""The compile stage: compile the graph with Inductor, and compare it with eager and float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synth_core.graph.rebuild import arguments, double_by_default, doubled
from synth_core.validation.failures import one_line
from synth_core.validation.judge.proofs import Run
from synth_core.validation.prover import disturb, eager, inductor
from synth_core.validation.prover.case import Case
from synth_core.validation.prover.inductor import Generated
from synth_core.validation.prover.running import Graph, Outputs
from synth_core.validation.tolerance import tolerance_for

Request = Mapping[str, Any]


@dataclass
class Compiled:
    """A graph with its generated code. Build `generated.kernels` before you call `run`."""

    graph: Graph
    case: Case
    found: Run
    generated: Generated

    def run(self) -> Run:
        """The outputs of the generated code. Raises what that code raises."""
        self.found.compiled = self.graph(self.case.tensors, self.generated.forward)
        return self.found


def generate(request: Request, case: Case) -> Compiled:
    """Run eager and the reference, and generate code. Raises what the graph or Inductor raises."""
    graph, found = eager.started(case, int(request["seed"]))
    outputs = found.outputs
    found.plain, found.traced = eager.compared(case, graph, outputs)
    found.measured["tolerance"] = [tolerance.describe() for tolerance in found.tolerances]
    try:
        found.reference = _reference(case, graph, outputs)
    except disturb.EXHAUSTED:
        raise
    except Exception as error:
        found.measured["no_reference"] = one_line(str(error))[:200]
    given = arguments(case.record, case.tensors)
    return Compiled(graph, case, found, inductor.generate(case.module(), given))


def _reference(case: Case, graph: Graph, outputs: Outputs) -> Outputs:
    """The outputs of the graph in double precision. Raises what the graph raises in it."""
    tolerances = [tolerance_for(tensor.dtype) for tensor in outputs]
    # Differences within the tolerance do not count: some algorithms of cuDNN never repeat exactly.
    if disturb.moved(graph(case.tensors, seed=graph.seed + 1), outputs, tolerances) > 0.0:
        raise ValueError("forward draws random numbers")
    wide = doubled(case.tensors)
    with double_by_default():
        return Graph(case.record, case.module(None, wide, double=True), graph.seed, case.most)(wide)
