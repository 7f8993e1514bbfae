"""Run a child and a prover in this process, on programs that this repository wrote itself."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch

from synth_core.validation.evidence import Evidence, Observation
from synth_core.validation.inside import run
from synth_core.validation.prover.cxx import Compiler
from synth_core.validation.prover.worker import Job, Prover, warm
from synth_core.validation.reading import read
from synth_core.validation.sandbox import process
from synth_core.validation.sandbox.files import anonymous_file, contents

torch.set_num_threads(1)

DRAW_SEED = 11
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
    """What the engine asks of a program: its text, its seed, and what its text alone shows."""
    reading = read(source, NAME, gated=False)
    known: dict[str, Any] = {
        name: reading[name] for name in ("rules", "literal_tuple", "numbers") if name in reading
    }
    asked = {"source": source, "name": NAME, "seed": 7, "draw_seed": DRAW_SEED, "requested": [], "skip": []}
    return {**asked, **known, **more}


def streams_of(asked: dict[str, Any]) -> list[Evidence]:
    """What the children write of a program: the capture, the runs on drawn inputs, the digests of a repeat.

    There is no repeat where the check `deterministic` is switched off, or where the program raises.
    """
    captured, drawn = _child(run.capture_program, asked)
    streams = [
        Evidence.read(captured, Observation(exit_code=0)),
        Evidence.read(drawn, Observation(exit_code=0)),
    ]
    if "deterministic" in asked["skip"]:
        return streams
    digests = json.loads(_child(run.repeat_program, asked)[0])
    if "error" not in digests:
        streams.append(Evidence(Observation(exit_code=0), True, {}, {"digests": digests}))
    return streams


def judged(asked: dict[str, Any], streams: Sequence[Evidence], stage: str = "eager") -> dict[str, Any]:
    """The judgement of a prover in this process."""
    answers: list[dict[str, Any]] = []
    prover = Prover(compiler() if stage == "compile" else None, answers.append)
    prover.prove([Job(id=0, stages=[stage], request=asked, streams=list(streams))])
    (judgement,) = [answer["judgement"] for answer in answers if "judgement" in answer]
    return dict(judgement)


def eager(source: str, **more: Any) -> dict[str, Any]:
    """The eager verdict's fields."""
    asked = request(source, **more)
    return judged(asked, streams_of(asked))


def compiled(source: str, **more: Any) -> dict[str, Any]:
    """The compile verdict's fields."""
    asked = request(source, **more)
    return judged(asked, streams_of(asked | {"skip": ["deterministic"]}), "compile")


@cache
def compiler() -> Compiler:
    """A warm C++ compiler. Its precompiled header is the one that engines without a cache folder share."""
    return warm(f"{tempfile.gettempdir()}/synth-cache-{os.getuid()}/headers")


def _child(body: Callable[[], None], asked: dict[str, Any]) -> tuple[bytearray, bytearray]:
    """Run a child's body in this process on files of its own; return what it wrote before and after the seed.

    The seed waits on the channel from the start, as this process cannot wait for itself.
    """
    program = anonymous_file("program", json.dumps(asked).encode())  # the body closes it
    files = [anonymous_file("captured"), anonymous_file("fresh")]
    evidence, fresh = map(os.dup, files)
    ours, theirs = socket.socketpair()
    ours.send(DRAW_SEED.to_bytes(8, "little"))
    with pytest.MonkeyPatch.context() as patch, ours, theirs:
        places = {"PROGRAM": program, "EVIDENCE": evidence, "FRESH": fresh, "CHANNEL": theirs.fileno()}
        for name, descriptor in places.items():
            patch.setattr(process, name, descriptor)
        try:
            body()
        finally:
            gc.enable()
    captured, drawn = [bytearray(contents(file, 2**30)) for file in files]
    for file, given in zip(files, (evidence, fresh), strict=True):
        with contextlib.suppress(OSError):  # the body has closed those that it used
            if os.path.sameopenfile(file, given):
                os.close(given)
        os.close(file)
    return captured, drawn
