"""What a child does with one program: build it, run it, capture its graph. It decides nothing.

All that it writes is evidence, which a prover checks. An exception of the program is evidence, too. An
exception of our own code leaves the evidence without its end mark, and then the program fails.

The file EVIDENCE is written before the supervisor draws the seed. It holds `graph`, the record as text;
`leaf.NAME`, the tensors that the graph reads; `output.N`, outputs of the text; `other.N`, the inputs under
another seed; and `facts`. The file FRESH is written afterwards. It holds `draw.K.N`, outputs of the text on
inputs drawn from the seed, and `again.N`, outputs on its own inputs once more. Either file may hold `error`
instead. A child that only repeats writes JSON: digests of its `output` and its `state`, or `error`.

A `brief` request is for programs of GPU size, which take seconds for each run on this CPU. Then the text runs
once, on one draw, and of each input only the values for draws are written.
"""

from __future__ import annotations

import gc
import json
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from synth_core.graph import draw
from synth_core.graph.capture import capture
from synth_core.graph.encode import NotCapturable, tensors_in
from synth_core.validation.evidence import DRAWS, SAMPLE, EvidenceWriter, digest
from synth_core.validation.inside.loading import (
    FILE,
    BrokenContract,
    Loaded,
    Request,
    Runner,
    is_pair,
    load,
    with_tensors,
)
from synth_core.validation.sandbox import process

MAX_MESSAGE = 2000
_SEED_BYTES = 8


class Ended(Exception):
    """The program failed, and the evidence says how."""


def capture_program() -> None:
    """The body of a child that captures."""
    request = process.read_program()
    gc.disable()  # it would copy pages of the zygote and free nothing
    with suppress(Ended):
        with process.written(process.EVIDENCE) as file:
            out = EvidenceWriter(file)
            program = _captured(request, out)
            out.end()
        os.write(process.CHANNEL, process.CAPTURED)
        seed = int.from_bytes(os.read(process.CHANNEL, _SEED_BYTES), "little")
        with process.written(process.FRESH) as file:
            out = EvidenceWriter(file)
            _run_on_drawn(program, request, seed, out)
            out.end()


def draw_program() -> None:
    """The body of a child whose graph was captured in the eager stage, from the same text by another name.

    It writes the file FRESH only.
    """
    request = process.read_program()
    gc.disable()
    os.write(process.CHANNEL, process.CAPTURED)
    seed = int.from_bytes(os.read(process.CHANNEL, _SEED_BYTES), "little")
    with suppress(Ended), process.written(process.FRESH) as file:
        out = EvidenceWriter(file)
        with phase("builds", out):
            program = load(request)
        _run_on_drawn(program, request, seed, out)
        out.end()


def repeat_program() -> None:
    """The body of a child that repeats, in a process with other hashes and addresses. It writes digests.

    Sets have the reverse order there. So the digests of a program differ if its layers have the
    order of a set.
    """
    request = process.read_program()
    with process.written(process.EVIDENCE) as file:
        phase = "builds"
        try:
            program = load(request, sets_reversed=True)
            phase = "runs"
            run = _runner(program, request)
            result = () if request.get("brief") else run.raw(program.inputs)
            outputs = run.kept(result)
            if not (outputs or request.get("brief")):
                raise BrokenContract(f"forward returns {type(result).__name__}, not tensors")
            state = {**dict(program.module.named_parameters()), **dict(program.module.named_buffers())}
            digests = {
                "output": [digest(tensor) for tensor in outputs],
                "state": {path: digest(tensor) for path, tensor in state.items()},
            }
            file.write(json.dumps(digests).encode())
        except BaseException as error:
            file.write(json.dumps({"error": {"phase": phase, **describe(error)}}).encode())


def _captured(request: Request, out: EvidenceWriter) -> Loaded:
    seed = int(request["seed"])
    with phase("builds", out):
        program = load(request)
        others = [] if request.get("brief") else program.draw_inputs(seed + 1)
    run = _runner(program, request)
    if not request.get("brief"):
        _record("output", _ran(program, run, out), out)
        _record("other", list(tensors_in(others)), out)
    with phase("captures", out):
        try:
            captured = capture(program.module, program.inputs, execute=not request.get("brief"))
        except NotCapturable:
            if request.get("brief"):  # an exception of the program itself says more
                _ran(program, run, out)
            raise
    out.json("graph", captured.record.dump())
    inputs = {leaf.name for leaf in captured.record.of_kind("input")}
    for name, tensor in captured.tensors.items():
        most = _most(request) if name in inputs else None
        out.tensor(f"leaf.{name}", tensor if most is None else draw.values_of(tensor, most))
    tensors = [item for item in program.inputs if isinstance(item, torch.Tensor)]
    out.json(
        "facts",
        {
            "init_inputs_are_a_pair": is_pair(program.init_inputs),
            "inputs_are_flat": isinstance(program.declared_inputs, list | tuple)
            and len(tensors) == len(program.inputs),
        },
    )
    return program


def _ran(program: Loaded, run: Runner, out: EvidenceWriter) -> list[torch.Tensor]:
    with phase("runs", out):
        result = run.raw(program.inputs)
        outputs = run.kept(result)
        if not outputs:
            raise BrokenContract(f"forward returns {type(result).__name__}, not tensors")
    return outputs


def _most(request: Request) -> int | None:
    return SAMPLE if request.get("brief") else None


def _runner(program: Loaded, request: Request) -> Runner:
    return Runner(program.module, int(request["seed"]), _most(request))


def _run_on_drawn(program: Loaded, request: Request, seed: int, out: EvidenceWriter) -> None:
    run = _runner(program, request)
    given = list(tensors_in(program.inputs))
    with phase("runs", out):
        for number in range(1 if request.get("brief") else DRAWS):
            fresh = draw.fresh(given, seed + number, _most(request))
            _record(f"draw.{number}", run(with_tensors(program.inputs, iter(fresh))), out)
        if not request.get("brief"):
            _record("again", run(program.inputs), out)


@contextmanager
def phase(name: str, out: EvidenceWriter) -> Iterator[None]:
    """If the program raises in this block, the exception becomes evidence and the run ends."""
    try:
        yield
    except BaseException as error:
        out.json("error", {"phase": name, **describe(error)})
        out.end()
        raise Ended from error


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data: its classes, its text, and the innermost line of the program in its traceback."""
    kinds = [kind.__name__ for kind in type(error).__mro__[:-1]]
    if isinstance(error, NotCapturable):
        kinds.append(error.kind)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    where = f"line {frames[-1].lineno}: {(frames[-1].line or '').strip()}"[:MAX_MESSAGE] if frames else ""
    return {"kinds": kinds, "message": str(error)[:MAX_MESSAGE], "where": where}


def _record(name: str, tensors: Sequence[torch.Tensor], out: EvidenceWriter) -> None:
    for position, tensor in enumerate(tensors):
        out.tensor(f"{name}.{position}", tensor)
