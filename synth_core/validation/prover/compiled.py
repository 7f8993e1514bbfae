"""The compile stage: Inductor on the graphs of several programs, their C++ as one unit, and the
comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synth_core.graph.nodes import nodes_of
from synth_core.graph.rebuild import arguments, measured, rebuild
from synth_core.records import Stage
from synth_core.validation.ends import Judgement
from synth_core.validation.evidence import Evidence
from synth_core.validation.failures import one_line
from synth_core.validation.judge.proofs import Run
from synth_core.validation.prover import building, case, decide, eager, inductor, running
from synth_core.validation.prover.case import Case
from synth_core.validation.prover.compiler import Compiler
from synth_core.validation.tolerance import tolerance_for

Request = Mapping[str, Any]


@dataclass
class _Program:
    """A program on its way through the stage. problem: what ended that way."""

    request: Request
    evidences: Sequence[Evidence]
    case: Case | None = None
    generated: inductor.Generated | None = None
    problem: Exception | None = None

    def prepare(self) -> None:
        try:
            self.case = case.read(self.evidences)
            given = arguments(self.case.record, self.case.tensors)
            self.generated = inductor.generate(rebuild(self.case.record, self.case.tensors), given)
        except Exception as error:
            self.problem = error

    def judgement(self) -> Judgement:
        return decide.decide(self.request, Stage.VALIDATE_COMPILE, self._read, self._measure)

    def _read(self) -> Case:
        return self.case or case.read(self.evidences)

    def _measure(self, found: Case) -> Run:
        if self.problem:
            raise self.problem
        assert self.generated
        running.quiet_torch(exact=True)
        given = arguments(found.record, found.tensors)
        record, _ = measured(found.record, rebuild(found.record, found.tensors), given)
        graph = running.Graph(record, rebuild(record, found.tensors), int(self.request["seed"]))
        outputs = graph(found.tensors)
        targets = [node.target for node in nodes_of(record)]
        run = Run(outputs=outputs, tolerances=[tolerance_for(tensor.dtype, targets) for tensor in outputs])
        run.measured["tolerance"] = [tolerance.describe() for tolerance in run.tolerances]
        run.plain = [found.plain, *found.drawn]
        run.traced = [outputs, *(graph(values) for values in eager.draws(self.request, found))]
        run.compiled = graph(found.tensors, execute=self.generated.forward)
        try:
            run.reference = eager.reference(self.request, found, outputs, run.tolerances)
        except Exception as error:
            run.measured["no_reference"] = one_line(str(error))[:200]
        return run


def prove(
    cases: Sequence[tuple[Request, Sequence[Evidence]]], compiler: Compiler | None
) -> Iterator[tuple[int, Judgement]]:
    """The number and the judgement of each case. compiler: of C++; None on a GPU, where there is none."""
    programs = [_Program(request, evidences) for request, evidences in cases]
    for program in programs:
        program.prepare()
    ready = [program for program in programs if program.generated]
    if compiler:
        kernels = [program.generated.kernels for program in ready if program.generated]
        for program, problem in zip(ready, building.bind(compiler, kernels), strict=True):
            program.problem = problem
    for number, program in enumerate(programs):
        yield number, program.judgement()
