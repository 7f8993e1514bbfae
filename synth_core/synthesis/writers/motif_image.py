"""Motifs for images: common blocks of convolutional networks."""

from __future__ import annotations

from synth_core.operators.operator import Kind
from synth_core.synthesis import extents
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.writers.convolution import out_width
from synth_core.synthesis.writers.dense import width_text

ACTS = ("F.relu", "F.silu", "F.gelu", "F.relu6", "F.hardswish")


def squeeze_excite(d: Draft, x: Value, operator: str) -> Value:
    """Scale every channel by a gate computed from the means of all channels."""
    ratio, rank, width = d.rng.choice((2, 4)), len(x.spatial), width_text(d, x)
    inner = extents.part(width, ratio) if x.channels // ratio >= 2 else "2"
    pool = d.attribute("squeeze", f"nn.AdaptiveAvgPool{rank}d(1)")
    reduce = d.attribute("reduce", f"nn.Conv{rank}d({width}, {inner}, 1)")
    expand = d.attribute("expand", f"nn.Conv{rank}d({inner}, {width}, 1)")
    scale = d.emit(f"{pool}({x})", x.kind, "scale")
    scale = d.emit(f"{d.choose('F.relu', 'F.silu')}({reduce}({scale}))", x.kind, "scale")
    return d.emit(f"{x} * torch.sigmoid({expand}({scale}))", x.kind, "h")


def _conv(d: Draft, hint: str, inner: str, out: str, kernel: int, groups: str = "", stride: int = 1) -> str:
    options = [inner, out, f"kernel_size={kernel}"]
    if stride > 1:
        options.append(f"stride={stride}")
    if kernel > 1:
        options.append(f"padding={kernel // 2}")
    if groups:
        options.append(f"groups={groups}")
    return d.attribute(hint, f"nn.Conv2d({', '.join(options)})")


def separable(d: Draft, x: Value, operator: str) -> Value:
    width = width_text(d, x)
    depthwise = _conv(d, "depthwise", width, width, d.rng.choice((3, 5)), groups=width)
    pointwise = _conv(d, "pointwise", width, d.sizes.width(out_width(d, x), x.kind, d.env), 1)
    h = d.emit(f"{depthwise}({x})", x.kind, "h")
    if d.rng.random() < 0.4:
        h = d.emit(f"{d.choose(*ACTS)}({h})", x.kind, "h")
    return d.emit(f"{pointwise}({h})", x.kind, "h")


def bottleneck(d: Draft, x: Value, operator: str) -> Value:
    """Widen, filter each channel separately, narrow. Add the input if the widths are equal."""
    width, act = width_text(d, x), d.choose(*ACTS)
    wide = extents.multiple(width, 2)
    expand, depthwise = _conv(d, "expand", width, wide, 1), _conv(d, "depthwise", wide, wide, 3, groups=wide)
    project = _conv(d, "project", wide, width, 1)
    h = d.emit(f"{act}({expand}({x}))", x.kind, "h")
    h = d.emit(f"{act}({depthwise}({h}))", x.kind, "h")
    if d.rng.random() < 0.6:
        return d.emit(f"{x} + {project}({h})", x.kind, "h")
    return d.emit(f"{project}({h})", x.kind, "h")


def residual_block(d: Draft, x: Value, operator: str) -> Value:
    width, act = width_text(d, x), d.choose("F.relu", "F.silu", "F.gelu")
    first, second = _conv(d, "conv", width, width, 3), _conv(d, "conv", width, width, 3)
    norm = (
        d.attribute("norm", f"nn.GroupNorm(2, {width})")
        if x.channels % 2 == 0 and d.rng.random() < 0.5
        else ""
    )
    h = d.emit(f"{act}({norm}({first}({x})))" if norm else f"{act}({first}({x}))", x.kind, "h")
    h = d.emit(f"{second}({h})", x.kind, "h")
    return d.emit(d.choose(f"{act}({x} + {h})", f"{h} + {x}"), x.kind, "h")


def patches(d: Draft, x: Value, operator: str) -> Value:
    sizes = [size for size in (2, 4) if all(side % size == 0 and side // size > 1 for side in x.spatial)]
    if not sizes:
        raise CannotWrite("no patch size divides the image")
    size, width = d.rng.choice(sizes), d.sizes.width(d.rng.choice((16, 24, 32)), Kind.SEQUENCE, d.env)
    text = f"nn.Conv2d({width_text(d, x)}, {width}, kernel_size={size}, stride={size})"
    return d.emit(
        f"{d.attribute('patch_embed', text)}({x}).flatten(2).transpose(1, 2)", Kind.SEQUENCE, "tokens"
    )


def pyramid(d: Draft, x: Value, operator: str) -> Value:
    """Add an enlarged coarse map to a finer map, which first passes a lateral convolution."""
    if any(side % 2 or side < 8 for side in x.spatial):
        raise CannotWrite("the sides are odd or short")
    width, out = width_text(d, x), d.sizes.width(out_width(d, x), x.kind, d.env)
    down = _conv(d, "down", width, out, 3, stride=2)
    lateral = _conv(d, "lateral", width, out, 1)
    coarse = d.emit(f"{d.choose('F.relu', 'F.silu', 'F.gelu')}({down}({x}))", x.kind, "coarse")
    return d.emit(f'{lateral}({x}) + F.interpolate({coarse}, scale_factor=2, mode="nearest")', x.kind, "h")


WRITERS = {
    "SqueezeExcite": squeeze_excite,
    "DepthwiseSeparableConv": separable,
    "InvertedBottleneck": bottleneck,
    "ResidualBlock": residual_block,
    "PatchEmbedding": patches,
    "FeaturePyramidMerge": pyramid,
}
