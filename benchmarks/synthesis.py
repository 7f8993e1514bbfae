"""Measures the constructive synthesizer: speed, readability and soundness of its programs.

    python benchmarks/synthesis.py [--programs 2000] [--sampler coherent|uniform] [--strategy balanced]
                                   [--seed 7] [--enlarge N]
                                   [--validate N] [--stage eager|compile] [--workers 2]

Writes `--programs` programs in this process with one thread, and prints one figure per line. Operators are
counted as realised: each program runs once (not in the measured time) and its graph is read. A special case
counts for the general operator too (MaxPool2d for MaxPool). `--enlarge N` looks for GPU sizes of the first N
programs. `--validate N` sends the first N through the validation engine, or only through its eager stage. A
failure is printed with the requested operators.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from synth_core.operators.catalog import CATALOG, find
from synth_core.operators.operator import Group
from synth_core.program.constants import constants_of
from synth_core.records import Candidate, Program, Specification
from synth_core.sampling.sample import sample
from synth_core.settings import Settings, ValidationSettings
from synth_core.strategies import effective_strategies
from synth_core.validation.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--sampler", choices=("coherent", "uniform"), help="default: the strategy's own")
    parser.add_argument("--strategy", default="balanced")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--enlarge", type=int, default=0)
    parser.add_argument("--validate", type=int, default=0)
    parser.add_argument("--stage", choices=("eager", "compile"), default="compile")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    specifications = draw(options.programs, options.sampler, options.strategy, options.seed)
    candidates = write(specifications)
    if options.enlarge:
        report_enlarged(candidates[: options.enlarge])
    if options.validate:
        validate(candidates[: options.validate], options.stage, options.workers)


def draw(count: int, sampler: str | None, strategy: str, seed: int) -> list[Specification]:
    """The first `count` specifications of a run with these options, for the first part of its strategy."""
    settings = Settings.model_validate({"seed": seed, "strategy": strategy, "sampler": sampler})
    sampled = sample(settings, effective_strategies(settings)[0], range(count))
    return [candidate.specification for candidate in sampled]


def write(specifications: list[Specification]) -> list[Candidate]:
    import torch

    from synth_core.errors import CannotWrite
    from synth_core.synthesis.build import Written, build

    torch.set_num_threads(1)
    written: list[tuple[int, Written]] = []
    refused: list[str] = []
    with torch.no_grad():
        build(["Conv2d", "LSTM", "TransformerEncoder"], 0)  # torch loads many modules at first use
        started = time.process_time()
        for index, one in enumerate(specifications):
            try:
                written.append((index, build(one.operators, one.seed)))
            except CannotWrite as error:
                refused.append(str(error))
        seconds = time.process_time() - started
        realised = [realised_by(program.source) for _, program in written]
    programs = [program for _, program in written]
    print(f"written                      {len(programs)} of {len(specifications)}")
    print(f"programs a CPU second        {len(programs) / seconds:.1f}")
    print(
        f"glue lines                   {share(sum(p.glue for p in programs), sum(p.lines for p in programs))}"
    )
    print(f"programs without glue        {share(sum(not p.glue for p in programs), len(programs))}")
    print(f"graphs that are no chain     {share(sum(not p.chain for p in programs), len(programs))}")
    print(f"programs that hold a motif   {share(sum(map(holds_motif, realised)), len(programs))}")
    shared = sum("weights of" in program.plan for program in programs)
    print(f"programs that share weights  {share(shared, len(programs))}")
    print(f"rarest operators             {', '.join(rarest(realised))}")
    for reason in refused:
        print(f"  refused: {reason}")
    return [
        Candidate(index=index, specification=specifications[index], program=program(text.source))
        for index, text in written
    ]


def realised_by(source: str) -> set[str]:
    """The catalog names that a program realises, read from its graph as validation does."""
    import torch

    from synth_core.graph.capture import capture
    from synth_core.graph.nodes import nodes_of
    from synth_core.graph.rebuild import arguments, measured, rebuild

    env: dict[str, Any] = {}
    exec(source, env)
    (program,) = (v for v in env.values() if isinstance(v, type) and issubclass(v, torch.nn.Module))
    args, kwargs = env["get_init_inputs"]()
    module, inputs = program(*args, **kwargs).eval(), env["get_inputs"]()
    found = capture(module, inputs)
    given = arguments(found.record, found.tensors)
    record, _ = measured(found.record, rebuild(found.record, found.tensors), given)
    return {node.operator for node in nodes_of(record) if node.operator}


def rarest(realised: list[set[str]]) -> list[str]:
    """The five operators in the fewest programs, with their counts. Unwritable rows are left out."""
    seen: Counter[str] = Counter()
    for row in CATALOG:
        if not row.unwritable:
            answers = {row.name, *row.answered_by}
            seen[row.name] = sum(not answers.isdisjoint(held) for held in realised)
    return [f"{name} {count}" for name, count in seen.most_common()[:-6:-1]]


def report_enlarged(candidates: list[Candidate]) -> None:
    """Print how many programs have a GPU size for every constant, and which constants stay small."""
    import torch

    from synth_core.synthesis.enlarge import enlarge

    kept: Counter[str] = Counter()
    whole = refused = 0
    with torch.no_grad():
        for candidate in candidates:
            assert candidate.program is not None
            small = constants_of(candidate.program.source)
            try:
                large = enlarge(candidate.program.source, sets=0, seed=0).constants
            except ValueError:  # too many calls, even at small sizes
                refused += 1
                continue
            left = [name for name, value in small.items() if large[name] <= value]
            kept.update(left)
            whole += not left
    print(f"fully enlarged               {share(whole, len(candidates))}")
    print(f"  no sizes found: {refused}; left small: {dict(kept.most_common())}")


def validate(candidates: list[Candidate], stage: str, workers: int) -> None:
    with Engine(ValidationSettings(), workers) as engine:
        eager = engine.validate_eager(candidates)
        print(f"pass the eager stage         {share(sum(c.alive for c in eager), len(eager))}")
        judged = engine.validate_compile(eager) if stage == "compile" else eager
    if stage == "compile":
        print(f"pass the whole validation    {share(sum(c.alive for c in judged), len(judged))}")
    for candidate in judged:
        failure = candidate.failure
        if failure is not None:
            detail = " ".join(failure.detail.split())[:160]
            print(f"  {failure.category} {failure.check}: {detail}; {candidate.specification.operators}")


def program(source: str) -> Program:
    match = re.search(r"^class (\w+)", source, re.MULTILINE)
    assert match is not None
    return Program.of(match.group(1), source)


def holds_motif(names: Iterable[str]) -> bool:
    return any(find(name).group is Group.MOTIF for name in names)


def share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%} ({part} of {whole})"


if __name__ == "__main__":
    main()
