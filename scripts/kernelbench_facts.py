"""Write synth_core/filtering/kernelbench.json from a checkout of the public benchmark.

    python scripts/kernelbench_facts.py PATH_OF_KernelBench REVISION

Facts only: problem names, operator lists and hashes. No text of a problem is kept. The problems are run
on torch's meta device, so that their full sizes cost nothing: run this on the public repository only.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from recorder import Recorder

from synth_core.errors import UsageError
from synth_core.filtering.reference import KERNELBENCH, Problem
from synth_core.operators.catalog import find
from synth_core.records import Graph

_SPELLINGS = {"Conv2D": "Conv2d"}
_NEEDS_TRANSFORMERS = 4  # this level's programs load Hugging Face models


class _MetaRecorder(Recorder):
    """On the meta device all memory has one address, so an in-place call renames its own tensor alone."""

    def _overwrite(self, tensor: torch.Tensor, node: str) -> None:
        self._names[tensor] = node


def named_operators(stem: str) -> list[str]:
    """`4_Conv2d_Mish_Mish` names three operators; a name that is prose names none."""
    with contextlib.suppress(UsageError):
        return [find(_SPELLINGS.get(part, part)).name for part in stem.split("_")[1:] if part]
    return []


def captured(source: str) -> Graph:
    space: dict[str, Any] = {"__name__": "problem"}
    with torch.device("meta"), torch.no_grad():
        exec(compile(source, "problem", "exec"), space)
        program = space["Model"](*space["get_init_inputs"]()).eval()
        inputs = space["get_inputs"]()
        recorder = _MetaRecorder(program, inputs)
        with recorder:
            outputs = program(*inputs)
    found = recorder.finish(list(outputs) if isinstance(outputs, tuple | list) else [outputs])
    return Graph(nodes=found.nodes, operators=tuple(name for name, _ in found.units))


def facts(path: Path) -> Problem:
    source, graph = path.read_text(encoding="utf-8"), None
    level = int(path.parent.name[-1])
    if level < _NEEDS_TRANSFORMERS:
        try:
            graph = captured(source)
        except Exception as error:  # whatever a problem does on meta tensors: it has its other facts
            print(f"no graph of {path.stem}: {type(error).__name__}: {str(error)[:80]}")
    return Problem.of(f"level{level}/{path.stem}", source, named=named_operators(path.stem), graph=graph)


def main(folder: Path, revision: str) -> None:
    warnings.simplefilter("ignore")
    paths = sorted(folder.glob("level[1-4]/*.py"), key=lambda p: (p.parent.name, int(p.stem.split("_")[0])))
    source = "https://github.com/ScalingIntelligence/KernelBench"
    rows = ",\n".join(facts(path).model_dump_json() for path in paths)
    header = json.dumps({"source": source, "revision": revision})[:-1]
    KERNELBENCH.write_text(f'{header}, "problems": [\n{rows}\n]}}\n', encoding="utf-8")
    print(f"{len(paths)} problems -> {KERNELBENCH}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
