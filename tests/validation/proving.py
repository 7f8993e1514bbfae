"""A child and a prover in this process, for programs that this repository wrote itself."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from synth_core.graph import draw
from synth_core.graph.capture import capture
from synth_core.records import Stage
from synth_core.validation.evidence import Evidence, EvidenceWriter, Observation
from synth_core.validation.prover import case, decide, eager
from synth_core.validation.prover.case import Case, digest

torch.set_num_threads(1)
DRAW_SEED = 2**40 + 11


class Child:
    """Runs a program and keeps what it says; a test changes what it likes before `streams` is asked for."""

    def __init__(self, source: str, name: str, seed: int = 7) -> None:
        space: dict[str, Any] = {"__name__": name}
        exec(source, space)
        args, kwargs = space["get_init_inputs"]()
        torch.manual_seed(seed)
        self.seed = seed
        self.module: nn.Module = space[name](*args, **kwargs).eval()
        torch.manual_seed(seed)
        self.inputs: list[torch.Tensor] = space["get_inputs"]()
        torch.manual_seed(seed + 1)
        self.others: list[torch.Tensor] = space["get_inputs"]()
        torch.backends.mha.set_fastpath_enabled(False)
        self.captured = capture(self.module, self.inputs)
        self.record, self.tensors = self.captured.record, dict(self.captured.tensors)
        self.facts = {"init_inputs_are_a_pair": True, "inputs_are_flat": True}
        self.plain = self.run(self.inputs)

    def run(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        torch.manual_seed(self.seed)
        with torch.no_grad():
            result = self.module(*[tensor.clone() for tensor in inputs])
        return [t.clone() for t in (result if isinstance(result, tuple | list) else [result])]

    def streams(self, draws: int = 2) -> list[Evidence]:
        first, second, third = (io.BytesIO() for _ in range(3))
        out = EvidenceWriter(first)
        out.json("graph", self.record.dump())
        out.json("facts", self.facts)
        for name, tensor in self.tensors.items():
            out.tensor(f"leaf.{name}", tensor)
        for position, tensor in enumerate(self.plain):
            out.tensor(f"output.{position}", tensor)
        for position, tensor in enumerate(self.others):
            out.tensor(f"other.{position}", tensor)
        out.end()
        out = EvidenceWriter(second)
        for number in range(draws):
            drawn = draw.fresh(self.inputs, DRAW_SEED + number)
            for position, tensor in enumerate(self.run(drawn)):
                out.tensor(f"draw.{number}.{position}", tensor)
        for position, tensor in enumerate(self.run(self.inputs)):
            out.tensor(f"again.{position}", tensor)
        out.end()
        out = EvidenceWriter(third)
        state = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        out.json(
            "digests",
            {
                "output": [digest(tensor) for tensor in self.plain],
                "state": {path: digest(tensor) for path, tensor in state.items()},
            },
        )
        out.end()
        observed = Observation(exit_code=0)
        return [Evidence.read(bytearray(s.getvalue()), observed) for s in (first, second, third)]


def request(source: str, name: str, **more: Any) -> dict[str, Any]:
    asked = {"source": source, "name": name, "seed": 7, "requested": [], "skip": [], "device": "cpu"}
    return {**asked, "draw_seed": DRAW_SEED, "draws": 2, **more}


def proved(child: Child, asked: dict[str, Any]) -> dict[str, Any]:
    """The eager judgement of what a child said."""
    skip = frozenset(asked["skip"])
    streams = child.streams()
    return decide.decide(
        asked,
        Stage.VALIDATE_EAGER,
        lambda: case.read(streams, asked["draws"]),
        lambda read: eager.run(asked, read, skip),
    )


def read(child: Child) -> Case:
    return case.read(child.streams(), 2)
