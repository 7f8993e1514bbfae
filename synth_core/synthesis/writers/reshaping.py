"""Reshaping, channel shuffles, dropouts."""

from __future__ import annotations

import math

from synth_core.operators.operator import Kind
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value


def flatten(d: Draft, x: Value, operator: str) -> Value:
    """Flatten to one vector per row, or to patches if a sequence comes next."""
    if x.kind is Kind.VECTOR:
        raise CannotWrite("already flat")
    if x.spatial and d.bridge_to is Kind.SEQUENCE:
        return d.emit(f"{x}.flatten(2).transpose(1, 2)", Kind.SEQUENCE, "tokens")
    if math.prod(x.shape[1:]) > 512:
        if d.bridge_to is Kind.VECTOR or not x.spatial or len(x.spatial) == 1:
            raise CannotWrite("too many features for one vector")
        return d.emit(f"{x}.flatten(2)", Kind.SIGNAL, "flat")
    text = d.choose(
        f"torch.flatten({x}, 1)",
        f"{x}.flatten(1)",
        f"{x}.flatten(start_dim=1)",
        f"{d.attribute('flatten', 'nn.Flatten()')}({x})",
    )
    return d.emit(text, Kind.VECTOR, "flat")


def unflatten(d: Draft, x: Value, operator: str) -> Value:
    """Split the features of a vector into steps or channels, or the length of a signal into an image."""
    if x.kind is Kind.VECTOR:
        sizes = [n for n in (4, 6, 8) if x.channels % n == 0 and x.channels // n >= 4]
        if not sizes:
            raise CannotWrite("the features do not split into usual sizes")
        first = d.rng.choice(sizes)
        kind = d.bridge_to if d.bridge_to in (Kind.SEQUENCE, Kind.SIGNAL) else Kind.SIGNAL
        shape = f"({first}, -1)"
        text = d.choose(
            f"{x}.unflatten(1, {shape})", f"{d.attribute('unflatten', f'nn.Unflatten(1, {shape})')}({x})"
        )
        return d.emit(text, kind, "h")
    axis = 2 if x.spatial else 1
    if x.kind is Kind.VOLUME:
        raise CannotWrite("no more axes")
    size = x.shape[axis]
    factors = [n for n in range(2, size) if size % n == 0 and size // n >= 2]
    if not factors:
        raise CannotWrite("the axis does not split")
    first = min(factors, key=lambda n: abs(n - size // n))
    split = d.emit(f"{x}.unflatten({axis}, ({first}, -1))", Kind.IMAGE, "split")
    if x.kind is Kind.SIGNAL:
        return split
    if x.kind is Kind.SEQUENCE:
        return d.emit(f"{split}.mean(dim=2)", Kind.SEQUENCE, "h")
    return d.emit(f"{split}.amax(dim=2)", Kind.IMAGE, "h")


def unfold(d: Draft, x: Value, operator: str) -> Value:
    sides = [k for k in (2, 4) if all(size % k == 0 and size > k for size in x.spatial)]
    if not sides or x.kind is not Kind.IMAGE:
        raise CannotWrite("no patch size divides the image")
    k = d.rng.choice(sides)
    text = d.choose(
        f"F.unfold({x}, kernel_size={k}, stride={k})",
        f"{d.attribute('unfold', f'nn.Unfold(kernel_size={k}, stride={k})')}({x})",
    )
    if d.bridge_to is Kind.SEQUENCE:
        return d.emit(f"{text}.transpose(1, 2)", Kind.SEQUENCE, "patches")
    return d.emit(text, Kind.SIGNAL, "patches")


def fold(d: Draft, x: Value, operator: str) -> Value:
    """Arrange patches as an image. The number of steps must be that of a grid."""
    channels, count = (x.shape[1], x.shape[2]) if x.kind is Kind.SIGNAL else (x.shape[2], x.shape[1])
    rows = next((n for n in range(math.isqrt(count), 1, -1) if count % n == 0), 0)
    if not rows or channels % 4:
        raise CannotWrite("the steps do not form a grid, or the channels do not form patches")
    size = f"({2 * rows}, {2 * count // rows})"
    read = str(x) if x.kind is Kind.SIGNAL else f"{x}.transpose(1, 2)"
    options = f"{size}, kernel_size=2, stride=2"
    text = d.choose(f"F.fold({read}, {options})", f"{d.attribute('fold', f'nn.Fold({options})')}({read})")
    return d.emit(text, Kind.IMAGE, "h")


def channel_shuffle(d: Draft, x: Value, operator: str) -> Value:
    groups = [g for g in (2, 3, 4) if x.channels % g == 0 and x.channels // g > 1]
    if not groups:
        raise CannotWrite("no usual number of groups divides the channels")
    return d.emit(f"{d.attribute('shuffle', f'nn.ChannelShuffle({d.rng.choice(groups)})')}({x})", x.kind, "h")


def pixel_shuffle(d: Draft, x: Value, operator: str) -> Value:
    if operator == "PixelShuffle" and (x.channels % 4 or x.channels < 8):
        raise CannotWrite("too few channels")
    if operator == "PixelUnshuffle" and any(size % 2 or size < 4 for size in x.spatial):
        raise CannotWrite("the sides are odd or short")
    function = "pixel_shuffle" if operator == "PixelShuffle" else "pixel_unshuffle"
    text = d.choose(f"F.{function}({x}, 2)", f"{d.attribute('shuffle', f'nn.{operator}(2)')}({x})")
    return d.emit(text, x.kind, "h")


def dropout(d: Draft, x: Value, operator: str) -> Value:
    rate = d.rng.choice((0.1, 0.2, 0.25, 0.3, 0.5))
    argument = str(rate) if d.rng.random() < 0.5 else f"p={rate}"
    return d.emit(
        f"{d.attribute(d.choose('dropout', 'drop'), f'nn.{operator}({argument})')}({x})", x.kind, "h"
    )


WRITERS = {
    "Flatten": flatten,
    "Unflatten": unflatten,
    "Unfold": unfold,
    "Fold": fold,
    "ChannelShuffle": channel_shuffle,
    "PixelShuffle": pixel_shuffle,
    "PixelUnshuffle": pixel_shuffle,
    **dict.fromkeys(
        ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"), dropout
    ),
}
