"""Write synth_core/filtering/kernelbench.json from a checkout of the public benchmark.

    python scripts/kernelbench_facts.py PATH_OF_KernelBench REVISION

Facts only: problem names, operator lists and hashes. No text of a problem is kept.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from synth_core.errors import UsageError
from synth_core.filtering import kernelbench
from synth_core.filtering.fingerprints import text_hashes
from synth_core.filtering.static_operators import static_operators
from synth_core.operators.catalog import fingerprint

_SPELLINGS = {"Conv2D": "Conv2d"}


def operator_lists(name: str, source: str) -> list[list[str]]:
    """Folded operators as the problem's name gives them and as its code does."""
    lists = [fingerprint(static_operators(source))]
    with contextlib.suppress(UsageError):  # a name that is prose, not a list of operators
        lists.append(fingerprint([_SPELLINGS.get(part, part) for part in name.split("_")[1:] if part]))
    return [list(names) for names in dict.fromkeys(lists) if names]


def _by_level_and_number(path: Path) -> tuple[str, int]:
    return path.parent.name, int(path.stem.split("_")[0])


def main(folder: Path, revision: str) -> None:
    problems = []
    for path in sorted(folder.glob("level[1-4]/*.py"), key=_by_level_and_number):
        source = path.read_text(encoding="utf-8")
        text, shape = text_hashes(source)
        problems.append(
            {
                "level": int(path.parent.name[-1]),
                "name": path.stem,
                "operators": operator_lists(path.stem, source),
                "text": text,
                "shape": shape,
            }
        )
    source = "https://github.com/ScalingIntelligence/KernelBench"
    header = f'{{"source": "{source}", "revision": "{revision}",\n"problems": [\n'
    rows = ",\n".join(json.dumps(problem) for problem in problems)
    kernelbench.PATH.write_text(f"{header}{rows}\n]}}\n", encoding="utf-8")
    print(f"{len(problems)} problems -> {kernelbench.PATH}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
