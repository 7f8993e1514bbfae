"""Run the probe and the judge in this process, on programs that this repository wrote itself."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from typing import Any

import torch

from synth_core.validation.evidence import Evidence, EvidenceWriter, Observation
from synth_core.validation.inside.probe import run_compiled, run_eager
from synth_core.validation.judge.decide import judge_compiled, judge_eager

torch.set_num_threads(1)

NAME = "SynthModel_Program"


def program(
    forward: str,
    init: str = "",
    inputs: str = "torch.randn(4, 6)",
    *,
    args: str = "x",
    init_inputs: str = "[[], {}]",
    params: str = "",
    top: str = "",
) -> str:
    """The text of a whole program around the lines of `forward` and `__init__`."""
    return "\n".join(
        [
            "import torch",
            "import torch.nn as nn",
            "import torch.nn.functional as F",
            top,
            f"class {NAME}(nn.Module):",
            f"    def __init__(self{params}):",
            "        super().__init__()",
            textwrap.indent(textwrap.dedent(init), "        "),
            f"    def forward(self, {args}):",
            textwrap.indent(textwrap.dedent(forward), "        "),
            "def get_inputs():",
            f"    return [{inputs}]",
            "def get_init_inputs():",
            f"    return {init_inputs}",
            "",
        ]
    )


def request(source: str, **more: Any) -> dict[str, Any]:
    return {"source": source, "name": NAME, "seed": 7, "requested": [], "skip": [], **more}


def evidence_of(run: Callable[[dict[str, Any], EvidenceWriter], None], asked: dict[str, Any]) -> Evidence:
    stream = io.BytesIO()
    writer = EvidenceWriter(stream)
    run(asked, writer)
    writer.end()
    return Evidence.read(bytearray(stream.getvalue()), Observation(exit_code=0))


def eager(source: str, **more: Any) -> dict[str, Any]:
    """The eager verdict's fields."""
    asked = request(source, **more)
    return judge_eager(asked, evidence_of(run_eager, asked))


def compiled(source: str, **more: Any) -> dict[str, Any]:
    """The compile verdict's fields."""
    asked = request(source, **more)
    brief = evidence_of(run_eager, asked | {"brief": True})
    return judge_compiled(asked, brief, evidence_of(run_compiled, asked))
