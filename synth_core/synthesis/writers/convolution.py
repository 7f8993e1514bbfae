"""Convolutions and transposed convolutions of one to three spatial axes."""

from __future__ import annotations

from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.sizes import WIDTHS
from synth_core.synthesis.writers.dense import width_text


def convolution(d: Draft, x: Value, operator: str) -> Value:
    small = min(x.spatial)
    kernel = d.rng.choice([k for k in (1, 3, 3, 3, 5) if k <= small])
    out = out_width(d, x)
    options = [f"kernel_size={kernel}" if d.rng.random() < 0.7 else str(kernel)]
    padding = kernel // 2 if d.rng.random() < 0.7 else 0
    if small >= 8 and d.rng.random() < 0.25:
        options.append("stride=2")
    elif kernel == 3 and small >= 8 and d.rng.random() < 0.15:
        options.append("dilation=2")
        padding *= 2
    if padding:
        options.append(f"padding={padding}")
    groups = _groups(d, x.channels, out)
    if groups > 1:
        options.append(f"groups={width_text(d, x) if groups == x.channels else groups}")
    if d.rng.random() < 0.2:
        options.append("bias=False")
    return _layer(d, x, operator, "conv", out, options)


def transposed(d: Draft, x: Value, operator: str) -> Value:
    kernel, stride, padding, output_padding = d.rng.choice(
        ((2, 2, 0, 0), (4, 2, 1, 0), (3, 2, 1, 1), (3, 1, 1, 0), (3, 1, 0, 0))
    )
    options = [f"kernel_size={kernel}"]
    if stride > 1:
        options.append(f"stride={stride}")
    if padding:
        options.append(f"padding={padding}")
    if output_padding:
        options.append(f"output_padding={output_padding}")
    return _layer(d, x, operator, d.choose("deconv", "up_conv"), out_width(d, x), options)


def _layer(d: Draft, x: Value, operator: str, hint: str, out: int, options: list[str]) -> Value:
    if len(x.spatial) != int(operator[-2]):
        raise CannotWrite("another number of spatial axes")
    arguments = ", ".join((width_text(d, x), d.sizes.width(out, x.kind, d.env), *options))
    return d.emit(f"{d.attribute(hint, f'nn.{operator}({arguments})')}({x})", x.kind, "h")


def out_width(d: Draft, x: Value) -> int:
    if d.sharing == "twice":
        return x.channels
    near = [w for w in (x.channels * 2, x.channels, x.channels // 2) if 4 <= w <= 48]
    return d.rng.choice([*near, *WIDTHS[x.kind]])


def _groups(d: Draft, channels: int, out: int) -> int:
    """The number of groups: mostly 1, sometimes a few, sometimes one per channel."""
    usual = [g for g in (2, 4, channels) if channels % g == 0 and out % g == 0]
    return d.rng.choice(usual) if usual and d.rng.random() < 0.2 else 1


WRITERS = {
    **{f"Conv{rank}d": convolution for rank in (1, 2, 3)},
    **{f"ConvTranspose{rank}d": transposed for rank in (1, 2, 3)},
}
