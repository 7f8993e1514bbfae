"""Leaves out parameters without effect, such as a bias in front of a norm that subtracts it.

Validation disturbs every parameter with noise and compares the outputs. Here the same is done while the
program is a draft, except to parameters that must matter by their gradient.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from synth_core.errors import CannotWrite
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Attribute, Value
from synth_core.synthesis.replay import NOISE, Replay, shows, spread

LEAST_SHARE = 2e-3  # share of an output's elements that a parameter must change: validation allows half
ROUNDS = 3  # times that parameters are left out, before another program is drawn
OPTIONS = {
    "affine": {"weight", "bias"},
    "bias": {"bias"},
    "elementwise_affine": {"weight", "bias"},
}
"""Argument of a layer -> the parameters that it leaves out when it is False. The first that fits is written.

`affine` comes first: some releases of torch have no `bias` beside it.
"""


class _Parameter(NamedTuple):
    """A parameter of an attribute. name: its name in the layer; empty if the attribute is the parameter."""

    attribute: Attribute
    name: str
    held: nn.Parameter


def settle(d: Draft, outputs: list[Value]) -> Replay:
    """Leave out every parameter without effect. Raises `CannotWrite` if its layer cannot do without it.

    Returns the lines as they run now.
    """
    for _ in range(ROUNDS):
        replay = Replay(d, outputs)
        idle: dict[Attribute, set[str]] = defaultdict(set)
        for one in _idle(d, replay):
            idle[one.attribute].add(one.name)
        if not idle:
            return replay
        for attribute, names in idle.items():
            _leave_out(d, attribute, names)
        d.rerun()
    raise CannotWrite("parameters without effect remain")


def _idle(d: Draft, replay: Replay) -> list[_Parameter]:
    """The parameters that do not affect the outputs."""
    found = list(_parameters(d))
    generator = torch.Generator().manual_seed(0)
    certain = replay.predict([one.held for one in found])
    return [
        one
        for one, sure in zip(found, certain, strict=True)
        if not sure and not _matters(replay, one, generator)
    ]


def _parameters(d: Draft) -> Iterator[_Parameter]:
    for attribute in d.attributes:
        held = getattr(d.module, attribute.name)
        if isinstance(held, nn.Parameter):
            yield _Parameter(attribute, "", held)
        elif isinstance(held, nn.Module):
            for name, parameter in held.named_parameters():
                yield _Parameter(attribute, name, parameter)


def _matters(replay: Replay, one: _Parameter, generator: torch.Generator) -> bool:
    """Whether noise on the parameter changes an output."""
    before = one.held.data
    noise = torch.randn(before.shape, generator=generator) * NOISE * spread(before)
    changed = (before.float() + noise).to(before.dtype)
    one.held.data = changed.abs() if bool((before >= 0).all()) and bool((before > 0).any()) else changed
    try:
        pairs = replay.rerun({}, 0, {one.attribute.name})
        return any(shows(*pair, LEAST_SHARE, replay.roundings) for pair in pairs)
    finally:
        one.held.data = before


def _leave_out(d: Draft, attribute: Attribute, names: set[str]) -> None:
    """Write the layer without these parameters. Raises `CannotWrite` if no argument does that."""
    layer = getattr(d.module, attribute.name)
    own = {name for name, _ in layer.named_parameters()} if isinstance(layer, nn.Module) else set()
    known = inspect.signature(type(layer)).parameters if own else {}
    option = next((o for o, left in OPTIONS.items() if o in known and names <= left), None)
    if option is None:
        raise CannotWrite(f"{attribute.hint} {', '.join(sorted(names))} has no effect")
    for name in own & OPTIONS[option]:
        setattr(layer, name, None)
    text = attribute.text.replace(f", {option}=True", "")
    if text == attribute.text:
        text = f"{text.removesuffix(')')}, {option}=False)"
    d.attributes[d.attributes.index(attribute)] = replace(attribute, text=text)
