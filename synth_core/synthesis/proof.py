"""Proof that every line and every input shows in the outputs, by disturbing each in turn."""

from __future__ import annotations

from typing import Any

import torch

from synth_core.synthesis.draft import CannotWrite, Draft, Line, Value

LEAST_CHANGE = 1e-4  # of an output's own scale; validation asks for less
NOISE = 0.5  # of a value's own deviation


def prove(d: Draft, outputs: list[Value]) -> None:
    """Raise `CannotWrite` where a value can change without any output changing."""
    for output in outputs:
        for given in d.inputs:
            if output.tensor.data_ptr() == given.value.tensor.data_ptr():
                raise CannotWrite("an output is a view of an input")
    generator = torch.Generator().manual_seed(0)
    codes = [compile(_statement(line), "<forward>", "exec") for line in d.lines]
    env = dict(d.env)
    for given in d.inputs:
        if given.value.tensor.is_floating_point():
            _disturb(env, given.value, generator)
            _expect_change(env, codes, 0, d, outputs, given.value.name)
    for i, line in enumerate(d.lines):
        for value in line.outs:
            if value.tensor.is_floating_point() and value not in outputs:
                _disturb(env, value, generator)
                _expect_change(env, codes, i + 1, d, outputs, value.name)


def _statement(line: Line) -> str:
    return line.text if line.block else f"{line.targets} = {line.text}"


def _disturb(env: dict[str, Any], value: Value, generator: torch.Generator) -> None:
    noise = torch.randn(value.shape, generator=generator).to(value.tensor.dtype)
    env[value.name] = value.tensor + NOISE * value.tensor.float().std().to(value.tensor.dtype) * noise


def _expect_change(
    env: dict[str, Any], codes: list[Any], first: int, d: Draft, outputs: list[Value], name: str
) -> None:
    for code in codes[first:]:
        exec(code, env)
    changed = False
    for output in outputs:
        scale = float(output.tensor.float().abs().max())
        changed |= (
            float((env[output.name].float() - output.tensor.float()).abs().max()) > LEAST_CHANGE * scale
        )
    for value in d.values:
        env[value.name] = value.tensor
    if not changed:
        raise CannotWrite(f"{name} does not show in any output")
