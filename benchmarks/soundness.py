"""How many constructive programs pass the whole validation, and the CPU time of validation.

    python benchmarks/soundness.py --count 2000 --workers 2 [--sampler uniform] [--failures FILE]

Needs only torch, pydantic and pydantic-settings, so it also runs on a bare machine with more cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

from synth_core.providers.constructive import Synthesizer, WrittenProgram
from synth_core.records import Candidate, Category, Program, Stage, Verdict, sha256
from synth_core.sampling.sample import sample
from synth_core.settings import Settings
from synth_core.strategies import effective_strategies
from synth_core.validation.engine import Engine

_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--strategy", default="balanced")
    parser.add_argument("--sampler", default=None)
    parser.add_argument("--seconds", type=float, default=1e9, help="time limit; then report what is done")
    parser.add_argument("--failures", default="", help="write the failed programs to this JSONL file")
    chosen = parser.parse_args()
    settings = Settings(seed=chosen.seed, strategy=chosen.strategy, sampler=chosen.sampler).resolved()
    candidates = sample(settings, effective_strategies(settings)[0], range(chosen.count))
    began = time.monotonic()
    with closing(Synthesizer(chosen.workers)) as writer, ThreadPoolExecutor(2 * chosen.workers) as pool:
        candidates = list(pool.map(lambda candidate: _write(writer, candidate), candidates))
    wrote = time.monotonic()
    texts = "".join(candidate.program.source for candidate in candidates if candidate.program)
    print(
        f"written: {sum(c.alive for c in candidates)} of {len(candidates)} in {wrote - began:.0f} s, "
        f"SHA-256 of all {sha256(texts)[:16]}",
        flush=True,
    )
    with Engine(settings.validation, chosen.workers) as engine, ThreadPoolExecutor(8) as pool:
        print(f"sandbox: {engine.probe()}", flush=True)
        batches = [candidates[i : i + _BATCH] for i in range(0, len(candidates), _BATCH)]
        judged = [
            pool.submit(lambda b: engine.validate_compile(engine.validate_eager(b)), b) for b in batches
        ]
        finished, _ = wait(judged, timeout=chosen.seconds - (time.monotonic() - began))
        done = [candidate for future in judged if future in finished for candidate in future.result()]
        _report(done, time.monotonic() - wrote)
        if chosen.failures:
            with open(chosen.failures, "w") as file:
                file.writelines(_failure_line(c) for c in done if not c.alive)
        if len(done) < len(candidates):
            print(f"{len(candidates) - len(done)} were not done in time", flush=True)
            os._exit(0)  # processes that still run die with this one


def _write(writer: Synthesizer, candidate: Candidate) -> Candidate:
    written = writer.write(candidate.specification.operators, candidate.specification.seed)
    if not isinstance(written, WrittenProgram):
        return candidate.judged(Verdict.fail(Stage.LLM, Category.PROVIDER_ERROR, str(written)))
    name = written.source.split("class ", 1)[1].split("(", 1)[0]
    return candidate.model_copy(update={"program": Program.of(name, written.source)})


def _report(done: list[Candidate], seconds: float) -> None:
    total = len(done)
    eager = sum(candidate.passed(Stage.VALIDATE_EAGER) for candidate in done)
    accepted = sum(candidate.alive for candidate in done)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"eager and degeneracy: {eager} of {total} ({eager / total:.2%})")
    print(f"whole validation: {accepted} of {total} ({accepted / total:.2%})")
    print(f"validation: {seconds:.0f} s wall; children used {used.ru_utime + used.ru_stime:.0f} CPU s in all")
    reasons = Counter(
        (c.failure.category, c.failure.check, c.failure.detail.splitlines()[0][:120])
        for c in done
        if c.failure
    )
    for (category, check, detail), count in reasons.most_common(40):
        print(f"{count:5} {category} {check}: {detail}")
    seen = Counter(name for c in done if c.alive and c.graph for name in set(c.graph.operators))
    print("operators seen least:", seen.most_common()[:-16:-1])


def _failure_line(candidate: Candidate) -> str:
    assert candidate.failure is not None
    source = candidate.program.source if candidate.program else ""
    entry = {"id": candidate.id, **candidate.failure.model_dump(mode="json"), "source": source}
    return json.dumps(entry) + "\n"


if __name__ == "__main__":
    main()
