"""Figures of the constructive synthesizer: how fast, how readable, how sound.

    python benchmarks/synthesis.py [--programs 2000] [--sampler coherent|uniform] [--strategy balanced]
                                   [--seed 7] [--validate N] [--stage eager|compile] [--workers 2]

Writes `--programs` programs in this process, one thread, and prints one figure a line. `--validate N` sends
the first N of them through the validation engine, to the end or only through its eager stage; a failure is
printed with what was asked for.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter

from synth_core import coherent, sampling, strategies
from synth_core.operators.catalog import CATALOG, find
from synth_core.operators.operator import Group
from synth_core.records import Candidate, Program, Specification
from synth_core.settings import Settings, ValidationSettings
from synth_core.validation.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--sampler", choices=("coherent", "uniform"), default="coherent")
    parser.add_argument("--strategy", default="balanced")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--validate", type=int, default=0)
    parser.add_argument("--stage", choices=("eager", "compile"), default="compile")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    specifications = draw(options.programs, options.sampler, options.strategy, options.seed)
    candidates = write(specifications)
    if options.validate:
        validate(candidates[: options.validate], options.stage, options.workers)


def draw(count: int, sampler: str, name: str, seed: int) -> list[Specification]:
    strategy = strategies.load_strategy(name)[0]
    sampled = sampling.sample(Settings(seed=seed), strategy, range(count))
    specifications = [candidate.specification for candidate in sampled]
    if sampler == "uniform":
        return specifications
    ranges = {
        Group.CORE: strategy.num_core_ops_range,
        Group.COMPOUND: strategy.num_compound_ops_range,
        Group.SUPPORTING: strategy.num_supporting_ops_range,
    }

    def operators(specification: Specification) -> tuple[str, ...]:
        rng = random.Random(specification.seed)
        counts = {
            group: sampling.draw_count(rng, low, high, strategy.p_value)
            for group, (low, high) in ranges.items()
        }
        return tuple(coherent.draw(rng, counts))

    return [one.model_copy(update={"operators": operators(one)}) for one in specifications]


def write(specifications: list[Specification]) -> list[Candidate]:
    import torch

    from synth_core.synthesis.build import Written, build
    from synth_core.synthesis.draft import CannotWrite

    torch.set_num_threads(1)
    written: list[tuple[int, Written]] = []
    refused: list[str] = []
    with torch.no_grad():
        build(["Conv2d", "LSTM", "TransformerEncoder"], 0)  # torch loads much when first used
        started = time.process_time()
        for index, one in enumerate(specifications):
            try:
                written.append((index, build(one.operators, one.seed)))
            except CannotWrite as error:
                refused.append(str(error))
        seconds = time.process_time() - started
    programs = [program for _, program in written]
    asked = [specifications[index].operators for index, _ in written]
    seen = Counter(find(name).name for names in asked for name in set(names))
    expected = [row for row in CATALOG if row.group is not Group.MOTIF or seen[row.name]]
    rarest = min(expected, key=lambda row: seen[row.name])
    print(f"written                      {len(programs)} of {len(specifications)}")
    print(f"programs a CPU second        {len(programs) / seconds:.1f}")
    print(
        f"glue lines                   {share(sum(p.glue for p in programs), sum(p.lines for p in programs))}"
    )
    print(f"programs without glue        {share(sum(not p.glue for p in programs), len(programs))}")
    print(f"graphs that are no chain     {share(sum(not p.chain for p in programs), len(programs))}")
    print(f"programs that hold a motif   {share(sum(map(holds_motif, asked)), len(programs))}")
    shared = sum("weights of" in program.plan for program in programs)
    print(f"programs that share weights  {share(shared, len(programs))}")
    print(f"rarest operator              {rarest.name}, in {seen[rarest.name]} programs")
    for reason in refused:
        print(f"  refused: {reason}")
    return [
        Candidate(index=index, specification=specifications[index], program=program(text.source))
        for index, text in written
    ]


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


def holds_motif(names: tuple[str, ...]) -> bool:
    return any(find(name).group is Group.MOTIF for name in names)


def share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%} ({part} of {whole})"


if __name__ == "__main__":
    main()
