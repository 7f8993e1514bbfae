"""Compare programs, from Synth or from anyone, with a benchmark: `synth_core.scan`, and whole folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from synth_core.errors import UsageError
from synth_core.filtering.fingerprints import Fingerprints
from synth_core.filtering.reference import Problem, Reference, kernelbench
from synth_core.program.reading import ProgramLike, read_program
from synth_core.records import Record


class ScanResult(Record):
    """What one program is similar to.

    For a clean program, `reference` and `score` name the most similar problem with the same set of operators.
    """

    path: str = Field(description="The file; empty where the text was given")
    contaminated: bool
    tier: str = Field(description="What is alike: text, form, operators, or near; empty: it is clean")
    reference: str = Field(description="The problem, e.g. level2/4_Conv2d_Mish_Mish; empty: none is alike")
    score: float = Field(description="How much of the text is alike, 0 to 1; 1 where the match is exact")


def scan(program: ProgramLike) -> ScanResult:
    """Compare one program with the problems of KernelBench. It is not run, so its graph is not compared.

    A text that does not parse matches nothing.

    Args:
        program: The path of a file, the text itself, or an object with the text in `source`. A string
            without a line break is a path if it ends in `.py` or names something that exists.

    Returns:
        Whether it is contaminated, and by which problem.

    Raises:
        UsageError: The path is not a file, or the file cannot be read.

    Example:
        >>> import synth_core
        >>> program = synth_core.synthesize(["Conv2d", "Mish", "Mish"], seed=1)
        >>> result = synth_core.scan(program.source)
        >>> result.contaminated, result.tier, result.reference
        (True, 'operators', 'level2/4_Conv2d_Mish_Mish')
    """
    given = read_program(program, errors="replace")
    return _compared(str(given.path or ""), given.source, kernelbench())


def scan_files(paths: Iterable[Path | str], reference: Reference | None = None) -> Iterator[ScanResult]:
    """Compare every `*.py` file under the paths with the reference (default: KernelBench), one by one.

    No program is run, so graphs are not compared. A text that does not parse matches nothing.
    Raises `UsageError` for a path that does not exist.
    """
    reference = reference or kernelbench()
    for path in python_files(paths):
        yield _compared(str(path), path.read_text(encoding="utf-8", errors="replace"), reference)


def _compared(path: str, source: str, reference: Reference) -> ScanResult:
    prints = Fingerprints.of(source)
    match = reference.match(prints)
    near = match or reference.nearest(prints)
    return ScanResult(
        path=path,
        contaminated=match is not None,
        tier=match.tier if match else "",
        reference=near.problem if near else "",
        score=round(near.score, 3) if near else 0.0,
    )


def reference_of(paths: Iterable[Path | str]) -> Reference:
    """Make a reference from your own programs, for example a held-out set that must not be trained on."""
    return Reference.of(
        Problem.of(path.stem, path.read_text(encoding="utf-8", errors="replace"))
        for path in python_files(paths)
    )


def python_files(paths: Iterable[Path | str]) -> Iterator[Path]:
    """The given files, and every `*.py` in the given folders. Hidden files and folders are skipped."""
    for path in map(Path, paths):
        if path.is_dir():
            found = (file for file in path.rglob("*.py") if not _hidden(file.relative_to(path)))
            yield from sorted(found)
        elif path.exists():
            yield path
        else:
            raise UsageError(f"no file or folder {path}")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
