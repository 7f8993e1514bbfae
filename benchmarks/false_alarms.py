"""False alarms: does validation reject programs that people wrote and use? And does it catch the flawed ones?

    python benchmarks/false_alarms.py KERNELBENCH [--levels 1 2] [--eager] [--only 1/23 2/80]

KERNELBENCH is a checkout of the public benchmark (or its bare git directory). Its problems are adapted in
form (the class renamed), shrunk to CPU size (every large integer divided by one power of two, the smallest
that brings inputs, weights and outputs below ELEMENTS), and judged with the rules of the downstream contract
off, since these programs never meant to keep them. Nothing of it is stored.

Which problems are flawed is published: robust-kbench ships the results of its filters on levels 1 and 2.
NUMERIC failed one that looks at outputs (within 0.01 of zero, of each other over seeds, or along an axis; or
the input does not matter), REDUNDANT the one that reads the code for operations that could be left out. The
numeric filters are absolute and were run at full size on an older edition, so some are flaws of the size or
of that edition: for what is not rejected of them the script prints what it measures, at the size it ran and
at LARGER times that size, and which of three reasons the numbers give.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from synth_core.program.renaming import rename_class
from synth_core.records import Candidate, Program, Specification
from synth_core.settings import ValidationSettings
from synth_core.validation.engine import Engine

ELEMENTS = 2**19
LARGER = 16
FACTORS = [2**n for n in range(14)]
SIZES = [(factor, floor) for floors in ((8, 16, 4, 32), (2, 1)) for factor in FACTORS for floor in floors]
"""Factors, and what no integer is shrunk below, as they are tried: kernels and groups want different ones."""

ABSOLUTE = 0.01
"""The published filters' bound on what is zero, or constant."""

NUMERIC = {
    1: frozenset({23, 37, 38, 39, 50, 94, 96, 97, 98}),
    2: frozenset({9, 13, 23, 27, 36, 41, 44, 48, 49, 58, 66, 80, 84, 88, 89, 91, 96}),
}
REDUNDANT = {
    1: frozenset({14, 15, 87, 92}),
    2: frozenset(
        {2, 4, 7, 18, 20, 22, 25, 27, 29, 39, 40, 42, 44, 49, 53}
        | {54, 57, 62, 64, 69, 72, 74, 76, 79, 81, 87, 93, 94, 95}
    ),
}

EXPLAINED = {
    "2/3": "a scalar is added in front of a LayerNorm, which takes it out again",
    "2/28": "InstanceNorm2d warns of a wrong num_features, and Dynamo does not trace a warning: a real break",
    "2/43": "ReLU of a LogSumExp that is never negative",
    "2/83": "min(x, 0), then clamp(0, 1): all zeros, though no list names it",
}
"""What is rejected without a published flaw, and why."""


def problems(repository: Path, level: int) -> Iterator[tuple[int, str]]:
    """Number and text of every problem of a level."""
    folder = f"KernelBench/level{level}"
    if (repository / folder).is_dir():
        for file in (repository / folder).glob("*.py"):
            yield int(file.name.partition("_")[0]), file.read_text()
        return
    git = ["git", "--git-dir", str(repository)]
    listed = subprocess.run(
        [*git, "ls-tree", "--name-only", "HEAD", f"{folder}/"], capture_output=True, text=True
    )
    for path in listed.stdout.splitlines():
        if path.endswith(".py"):
            shown = subprocess.run([*git, "show", f"HEAD:{path}"], capture_output=True, text=True, check=True)
            yield int(Path(path).name.partition("_")[0]), shown.stdout


class Shrink(ast.NodeTransformer):
    """Divide every integer above `floor` in module-level assignments."""

    def __init__(self, factor: int, floor: int) -> None:
        self._factor, self._floor = factor, floor

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if type(node.value) is int and node.value > self._floor:
            return ast.Constant(max(self._floor, node.value // self._factor))
        return node


def shrunk(source: str, most: int = ELEMENTS) -> str | None:
    """The text with the smallest shrinking that fits; None where none does. Measured on the meta device."""
    for factor, floor in SIZES:
        tree = ast.parse(source)
        shrink = Shrink(factor, floor)
        tree.body = [shrink.visit(node) if isinstance(node, ast.Assign) else node for node in tree.body]
        text = ast.unparse(ast.fix_missing_locations(tree))
        size = elements(text)
        if size is not None and size <= most:
            return text
    return None


def elements(source: str) -> int | None:
    """Elements of inputs, weights and outputs; None where the program cannot run in this form."""
    import torch

    namespace: dict[str, object] = {"__name__": "problem"}
    try:
        with torch.device("meta"), torch.no_grad():
            exec(compile(source, "problem", "exec"), namespace)
            init, inputs = namespace["get_init_inputs"](), namespace["get_inputs"]()  # type: ignore[operator]
            program = namespace["Model"](*init).eval()  # type: ignore[operator]
            outputs = program(*inputs)
    except Exception:
        return None
    held = [*inputs, *program.parameters(), *(outputs if isinstance(outputs, tuple) else [outputs])]
    return sum(tensor.numel() for tensor in held if isinstance(tensor, torch.Tensor))


def measured(source: str) -> str:
    """What the numeric filters look at, absolutely as they do and relative to the output's size, and why the
    program is accepted all the same."""
    lines = [_measured(text) for most in (ELEMENTS, LARGER * ELEMENTS) if (text := shrunk(source, most))]
    largest, flattest = min(line[0] for line in lines), min(line[1] for line in lines)
    if largest < ABSOLUTE:
        why = "small, not zero: a softmax or a norm over many elements"
    elif flattest < ABSOLUTE:
        why = f"flat by {ABSOLUTE} absolutely, not relative to its size"
    else:
        why = "neither small nor flat at either size: a flaw of the older edition, or of a much larger size"
    return f"{why}; {'; '.join(line[2] for line in lines)}"


def _measured(source: str) -> tuple[float, float, str]:
    """Largest |output|, least standard deviation (over seeds, along any axis), and both in words."""
    import torch

    namespace: dict[str, object] = {"__name__": "problem"}
    torch.manual_seed(0)
    exec(compile(source, "problem", "exec"), namespace)
    program = namespace["Model"](*namespace["get_init_inputs"]()).eval()  # type: ignore[operator]
    with torch.no_grad():
        outputs = [program(*namespace["get_inputs"]()).double() for _ in range(5)]  # type: ignore[operator]
    largest = max(float(output.abs().max()) for output in outputs) or 1.0
    spreads = [float(torch.stack(outputs).std(0).max())] + [
        float(outputs[0].std(axis).max()) for axis in range(outputs[0].dim()) if outputs[0].shape[axis] > 1
    ]
    shape = list(outputs[0].shape)
    return (
        largest,
        min(spreads),
        f"{shape} largest {largest:.3g}, flattest {min(spreads) / largest:.2g} of it",
    )


def candidate(index: int, name: str, source: str) -> Candidate:
    specification = Specification(operators=(), strategy="", seed=0, provider="", prompt="", temperature=0.0)
    program = Program.of(name, rename_class(source, name))
    return Candidate(index=index, specification=specification, program=program)


@dataclass(frozen=True)
class Problem:
    level: int
    number: int
    text: str
    original: str

    @property
    def name(self) -> str:
        return f"{self.level}/{self.number}"

    @property
    def numeric(self) -> bool:
        return self.number in NUMERIC.get(self.level, ())

    @property
    def published(self) -> bool:
        return self.numeric or self.number in REDUNDANT.get(self.level, ())


def main() -> None:
    parser = argparse.ArgumentParser(description="False alarms of validation on KernelBench")
    parser.add_argument("kernelbench", type=Path)
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--eager", action="store_true", help="leave the compile stage out")
    parser.add_argument("--only", nargs="*", default=[], help="problems such as 2/80")
    options = parser.parse_args()

    chosen = [
        Problem(level, number, text, text)
        for level in options.levels
        for number, text in sorted(problems(options.kernelbench, level))
    ]
    chosen = [problem for problem in chosen if not options.only or problem.name in options.only]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        texts = list(pool.map(shrunk, [problem.text for problem in chosen]))
        fit = [
            Problem(p.level, p.number, text, p.text) for p, text in zip(chosen, texts, strict=True) if text
        ]
        print("could not be shrunk:", [p.name for p, text in zip(chosen, texts, strict=True) if not text])
        candidates = [candidate(i, f"Level{p.level}Problem{p.number}", p.text) for i, p in enumerate(fit)]
        with Engine(ValidationSettings(skip_checks=("contract",)), workers=2) as engine:
            done = engine.validate_eager(candidates)
            if not options.eager:
                done = engine.validate_compile(done)
        report(list(zip(fit, done, strict=True)), pool)


def report(judged: list[tuple[Problem, Candidate]], pool: ProcessPoolExecutor) -> None:
    groups = {
        "no published flaw": [pair for pair in judged if not pair[0].published],
        "published as redundant": [pair for pair in judged if pair[0].published and not pair[0].numeric],
        "published as numerically flawed": [pair for pair in judged if pair[0].numeric],
    }
    summary: dict[str, object] = {}
    for title, group in groups.items():
        failures = [(problem, one.failure) for problem, one in group if one.failure]
        print(f"\n{title}: {len(group)} programs, {len(failures)} rejected")
        for problem, failure in failures:
            print(f"  {problem.name} {failure.category} [{failure.check}] {failure.detail}")
            if not problem.published:
                print(f"    because: {EXPLAINED.get(problem.name, 'UNEXPLAINED')}")
        summary[title] = {
            "programs": len(group),
            "rejected": len(failures),
            "share": round(len(failures) / max(1, len(group)), 4),
            "checks": Counter(f"{failure.category}/{failure.check}" for _, failure in failures),
        }
    print("\npublished as numerically flawed, accepted:")
    accepted = [problem for problem, one in groups["published as numerically flawed"] if one.alive]
    for problem, line in zip(accepted, pool.map(measured, [p.original for p in accepted]), strict=True):
        print(f"  {problem.name} {line}")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
