"""Lines that no request asks for: they convert a value to another kind, or join two values."""

from __future__ import annotations

import math

from synth_core.operators.operator import Kind
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value

LONGEST_VECTOR = 512


def convert(d: Draft, x: Value, kind: Kind) -> Value:
    """Convert x to another kind in one line. Raises `CannotWrite` if there is no usual conversion."""
    if x.kind is kind:
        return x
    text, hint = d.rng.choice(_conversions(x, kind))
    return d.emit(text, kind, hint, role="glue")


def _conversions(x: Value, kind: Kind) -> list[tuple[str, str]]:
    if len(x.shape) < 2:
        raise CannotWrite("only one number per row")
    if kind is Kind.VECTOR:
        return _to_vector(x)
    match x.kind, kind:
        case Kind.VOLUME, Kind.IMAGE:
            ways = [f"{x}.mean(dim=2)", f"{x}.flatten(1, 2)", f"{x}.amax(dim=2)"]
        case Kind.VOLUME, Kind.SIGNAL:
            ways = [f"{x}.flatten(2)", f"{x}.mean(dim=(3, 4))"]
        case Kind.VOLUME, Kind.SEQUENCE:
            ways = [f"{x}.mean(dim=(3, 4)).transpose(1, 2)"]
        case Kind.IMAGE, Kind.SIGNAL:
            ways = [f"{x}.flatten(2)", f"{x}.mean(dim=3)"]
        case Kind.IMAGE, Kind.SEQUENCE:
            ways = [f"{x}.flatten(2).transpose(1, 2)", f"{x}.mean(dim=3).transpose(1, 2)"]
        case (Kind.SIGNAL, Kind.SEQUENCE) | (Kind.SEQUENCE, Kind.SIGNAL):
            ways = [f"{x}.transpose(1, 2)"]
        case Kind.SIGNAL, Kind.IMAGE:
            ways = [f"{x}.unflatten(2, {_grid(x.shape[-1])})"]
        case Kind.SEQUENCE, Kind.IMAGE:
            ways = [f"{x}.transpose(1, 2).unflatten(2, {_grid(x.shape[1])})"]
        case Kind.VECTOR, Kind.SEQUENCE | Kind.SIGNAL:
            ways = [f"{x}.unflatten(1, {_grid(x.channels)})"]
        case _:
            raise CannotWrite(f"no usual conversion from {x.kind} to {kind}")
    return [(text, "tokens" if kind is Kind.SEQUENCE else "h") for text in ways]


def _to_vector(x: Value) -> list[tuple[str, str]]:
    if x.kind is Kind.SEQUENCE:
        if x.hint == "outputs":  # the last step of a recurrent layer depends on all other steps
            return [(f"{x}[:, -1]", "last")]
        return [(f"{x}.mean(dim=1)", "pooled"), (f"{x}.amax(dim=1)", "pooled")]
    axes = list(range(2, len(x.shape)))
    dims = str(axes[0]) if len(axes) == 1 else str(tuple(axes))
    ways = [(f"{x}.mean(dim={dims})", "pooled"), (f"{x}.amax(dim={dims})", "pooled")]
    if math.prod(x.shape[1:]) <= LONGEST_VECTOR:
        ways += [(f"{x}.flatten(1)", "flat"), (f"torch.flatten({x}, 1)", "flat")]
    return ways


def _grid(count: int) -> tuple[int, int]:
    rows = next((n for n in range(math.isqrt(count), 1, -1) if count % n == 0), 0)
    if not rows:
        raise CannotWrite("the axis does not split into a grid")
    return (rows, count // rows)


def join(d: Draft, x: Value, y: Value) -> Value:
    """Join two values: concatenated along the channels, added, multiplied or gated.

    Values of different kinds or shapes are broadcast or converted to vectors first. Raises `CannotWrite` if
    they do not fit.
    """
    if x.shape == y.shape and x.kind is y.kind:
        cat = f"torch.cat([{x}, {y}], dim={x.axis})"
        text = d.rng.choices(
            (cat, f"{x} + {y}", f"{x} * {y}", f"{x} * torch.sigmoid({y})", f"torch.maximum({x}, {y})"),
            (6, 5, 2, 2, 1),
        )[0]
        return d.emit(text, x.kind, "merged", role="merge")
    if fits(x, y):
        return d.emit(f"torch.cat([{x}, {y}], dim={x.axis})", x.kind, "merged", role="merge")
    if y.kind is Kind.VECTOR and x.spatial and y.channels == x.channels:
        index = f"[:, :{', None' * len(x.spatial)}]"
        return d.emit(f"{x} * {y}{index}", x.kind, "h", role="merge")
    if y.kind is Kind.VECTOR and x.kind is Kind.SEQUENCE and y.channels == x.channels:
        return d.emit(f"{x} + {y}.unsqueeze(1)", x.kind, "h", role="merge")
    if x.kind is Kind.VECTOR and y.kind is not Kind.VECTOR and x.channels == y.channels:
        return join(d, y, x)
    if x.kind is Kind.VECTOR and y.kind is Kind.VECTOR:
        raise CannotWrite("vectors with different numbers of rows")
    return join(d, convert(d, x, Kind.VECTOR), convert(d, y, Kind.VECTOR))


def fits(x: Value, y: Value) -> bool:
    """Whether two values can be concatenated: same kind, and same shape except for the channels."""
    if x.kind is not y.kind or len(x.shape) != len(y.shape):
        return False
    axis = x.axis % len(x.shape)
    return all(a == b for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if i != axis)
