"""Write synth_core/filtering/kernelbench.json from a checkout of the public benchmark.

    python scripts/kernelbench_facts.py PATH_OF_KernelBench REVISION

The file contains only problem names, operator lists and hashes, no text of a problem. The script executes the
problems without a sandbox, so use the public repository only. It runs them on torch's meta device, where full
sizes cost nothing.
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
    """Records on the meta device. All memory has one address there, so only the tensor itself is renamed."""

    def _overwrite(self, tensor: torch.Tensor, node: str) -> None:
        self._names[tensor] = node


def named_operators(stem: str) -> list[str]:
    """The operators in a problem's name: three in `4_Conv2d_Mish_Mish`, none in a name of plain words."""
    with contextlib.suppress(UsageError):
        return [find(_SPELLINGS.get(part, part)).name for part in stem.split("_")[1:] if part]
    return []


def captured(source: str) -> Graph:
    """Run a problem on the meta device and capture its graph."""
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
    """The facts of one problem file, without a graph if the problem does not run on the meta device."""
    source, graph = path.read_text(encoding="utf-8"), None
    level = int(path.parent.name[-1])
    if level < _NEEDS_TRANSFORMERS:
        try:
            graph = captured(source)
        except Exception as error:  # problems may raise anything on meta tensors; the other facts remain
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
