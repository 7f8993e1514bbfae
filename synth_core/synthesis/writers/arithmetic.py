"""Element-wise arithmetic and distances. Most of these operators join two values."""

from __future__ import annotations

from synth_core.operators.operator import Kind
from synth_core.synthesis import extents
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.writers.activation import quantile


def partner(d: Draft, x: Value) -> Value:
    """Another value of the same shape: one that nothing reads yet, an earlier one, or a new input."""
    alike = [v for v in d.offered if v.kind is x.kind and v.shape == x.shape and v is not x]
    unread = {v.name for v in d.dangling()}
    fresh = [v for v in alike if v.name in unread]
    if fresh:
        return fresh[-1]
    if alike and d.rng.random() < 0.7:
        return d.rng.choice(alike)
    extents.texts(d, x)
    return d.input(x.kind, d.choose("y", "other", "context"), like=x)


def join(d: Draft, x: Value, operator: str) -> Value:
    y = partner(d, x)
    function = {"Add": "add", "Multiply": "mul", "Subtract": "sub"}[operator]
    sign = {"Add": "+", "Multiply": "*", "Subtract": "-"}[operator]
    text = d.rng.choices((f"{x} {sign} {y}", f"torch.{function}({x}, {y})"), (4, 1))[0]
    return d.emit(text, x.kind, "h")


def subtract(d: Draft, x: Value, operator: str) -> Value:
    if d.rng.random() < 0.5:
        return join(d, x, operator)
    shift = d.parameter("shift", f"torch.randn({_per_channel(d, x)})")
    return d.emit(f"{x} - {shift}", x.kind, "h")


def divide(d: Draft, x: Value, operator: str) -> Value:
    if d.rng.random() < 0.5:
        divisor = d.number("divisor", d.rng.choice((0.5, 2.0, 3.0, 4.0, 8.0)))
        return d.emit(f"{x} / {divisor}", x.kind, "h")
    y = partner(d, x)
    text = d.choose(f"{x} / (1.0 + {y}.abs())", f"torch.div({x}, {y}.abs() + 0.5)")
    return d.emit(text, x.kind, "ratio")


def clamp(d: Draft, x: Value, operator: str) -> Value:
    low, high = quantile(x, d.rng.uniform(0.05, 0.25)), quantile(x, d.rng.uniform(0.75, 0.95))
    if low >= high:
        raise CannotWrite("the values hardly differ")
    text = d.choose(
        f"torch.clamp({x}, {low}, {high})",
        f"torch.clamp({x}, min={low}, max={high})",
        f"{x}.clamp({low}, {high})",
        f"{x}.clamp(min={low})",
        f"torch.clamp({x}, max={high})",
    )
    return d.emit(text, x.kind, "h")


def scale(d: Draft, x: Value, operator: str) -> Value:
    if d.rng.random() < 0.5:
        factor = d.number("scale", d.rng.choice((0.125, 0.25, 0.5, 1.5, 2.0, 3.0)))
    else:
        factor = d.parameter(d.choose("scale", "gain"), f"torch.rand({_per_channel(d, x)}) + 0.5")
    return d.emit(f"{x} * {factor}", x.kind, "h")


def bias_add(d: Draft, x: Value, operator: str) -> Value:
    bias = d.parameter("bias", f"torch.randn({_per_channel(d, x)})")
    return d.emit(f"{x} + {bias}", x.kind, "h")


def residual_add(d: Draft, x: Value, operator: str) -> Value:
    """Add an ancestor of x with the same shape. If there is none, add x to a branch computed from it."""
    ancestors = d.ancestors(x)
    alike = [v for v in d.offered if v.name in ancestors and v.shape == x.shape and v.kind is x.kind]
    if alike:
        y = d.rng.choice(alike[-3:])
        return d.emit(d.choose(f"{x} + {y}", f"{y} + {x}"), x.kind, "h")
    if x.channels > 128:
        raise CannotWrite("no earlier value has this shape, and a branch would be large")
    width, rank = extents.channels(d, x), len(x.spatial)
    layer = f"nn.Conv{rank}d({width}, {width}, kernel_size=1)" if rank else f"nn.Linear({width}, {width})"
    return d.emit(f"{x} + {d.attribute('branch', layer)}({x})", x.kind, "h")


def identity(d: Draft, x: Value, operator: str) -> Value:
    return d.emit(f"{d.attribute('identity', 'nn.Identity()')}({x})", x.kind, "h")


def distance(d: Draft, x: Value, operator: str) -> Value:
    """Compare x with another value along the features. The result gates x, or is returned as a head."""
    y = partner(d, x)
    if operator == "CosineSimilarity":
        axis = x.axis
        text = d.choose(
            f"F.cosine_similarity({x}, {y}, dim={axis})",
            f"{d.attribute('similarity', f'nn.CosineSimilarity(dim={axis})')}({x}, {y})",
        )
        hint = "similarity"
    else:  # always along the last axis
        axis = -1
        text = d.choose(
            f"F.pairwise_distance({x}, {y})",
            f"{d.attribute('distance', 'nn.PairwiseDistance(p=2)')}({x}, {y})",
        )
        hint = "distance"
    found = d.emit(text, Kind.VECTOR, hint)
    if len(found.shape) == 1 and len(d.heads) < 2 and d.rng.random() < 0.5:
        d.heads.append(found)
        return x
    return d.emit(f"{x} * {found}.unsqueeze({axis})", x.kind, "h", role="merge")


def _per_channel(d: Draft, x: Value) -> str:
    """Text of the shape of a parameter with one number per channel. It broadcasts against x."""
    width = extents.channels(d, x)
    return ", ".join((width, *("1" for _ in x.spatial)))


WRITERS = {
    "Add": join,
    "Multiply": join,
    "Subtract": subtract,
    "Divide": divide,
    "Clamp": clamp,
    "Scale": scale,
    "BiasAdd": bias_add,
    "ResidualAdd": residual_add,
    "Identity": identity,
    "CosineSimilarity": distance,
    "PairwiseDistance": distance,
}
