"""Pooling and its inverse, padding, upsampling."""

from __future__ import annotations

from synth_core.operators.operator import Kind
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value


def _check_rank(x: Value, operator: str) -> int:
    rank = len(x.spatial)
    if rank == 0 or (operator[-1] == "d" and int(operator[-2]) != rank):
        raise CannotWrite("another number of spatial axes")
    return rank


def window(d: Draft, x: Value, operator: str) -> Value:
    """MaxPool, AvgPool and LPPool of any rank."""
    rank = _check_rank(x, operator)
    layer = operator if operator[-1] == "d" else f"{operator}{rank}d"
    if min(x.spatial) < 4:
        raise CannotWrite("too little space left")
    if layer.startswith("LPPool"):  # an odd norm of negative numbers is NaN
        options = d.rng.choice(("2, 2", "2, kernel_size=3, stride=2", "4, kernel_size=2"))
        hint, function = "pool", f"F.lp_pool{rank}d"
    else:
        options = d.rng.choice(
            (
                "2",
                "kernel_size=2",
                "kernel_size=3, stride=2",
                "3, stride=2, padding=1",
                "kernel_size=3, stride=1, padding=1",
            )
        )
        hint, function = d.choose("pool", "pool"), f"F.{layer[:3].lower()}_pool{rank}d"
    if d.rng.random() < 0.3:
        return d.emit(f"{function}({x}, {options})", x.kind, "pooled")
    return d.emit(f"{d.attribute(hint, f'nn.{layer}({options})')}({x})", x.kind, "pooled")


def adaptive(d: Draft, x: Value, operator: str) -> Value:
    rank = _check_rank(x, operator)
    sizes = [s for s in (1, 2, 3, 4, 6) if s < min(x.spatial)]
    if not sizes:
        raise CannotWrite("nothing left to pool")
    if d.bridge_to is Kind.VECTOR:
        layer = d.attribute(d.choose("pool", "global_pool"), f"nn.{operator}(1)")
        return d.emit(f"{layer}({x}).flatten(1)", Kind.VECTOR, "pooled")
    size = d.rng.choice([s for s in sizes if s > 1] or sizes)
    text = f"({', '.join([str(size)] * rank)})" if rank > 1 and d.rng.random() < 0.5 else str(size)
    return d.emit(f"{d.attribute('pool', f'nn.{operator}({text})')}({x})", x.kind, "pooled")


def global_average(d: Draft, x: Value, operator: str) -> Value:
    rank = _check_rank(x, operator)
    if max(x.spatial) < 2:
        raise CannotWrite("nothing left to pool")
    if d.bridge_to is Kind.VECTOR or d.rng.random() < 0.4:
        axes = tuple(range(2, 2 + rank))
        if rank > 1 and d.rng.random() < 0.5:
            return d.emit(f"{x}.mean(dim={list(axes)})", Kind.VECTOR, "pooled")
        return d.emit(f"F.adaptive_avg_pool{rank}d({x}, 1).flatten(1)", Kind.VECTOR, "pooled")
    pool = d.attribute("squeeze", f"nn.AdaptiveAvgPool{rank}d(1)")
    pooled = d.emit(f"{pool}({x})", x.kind, "pooled")
    return d.emit(
        f"{x} * torch.sigmoid({pooled})" if d.rng.random() < 0.6 else f"{x} - {pooled}",
        x.kind,
        "h",
        role="merge",
    )


def fractional(d: Draft, x: Value, operator: str) -> Value:
    """FractionalMaxPool draws random windows at every call. With a whole ratio, they are always the same."""
    _check_rank(x, operator)
    kernel = d.rng.choice((2, 3))
    outs = [_whole_ratio(d, side, kernel) for side in x.spatial]
    size = str(outs[0]) if len(set(outs)) == 1 else str(tuple(outs))
    layer = d.attribute("pool", f"nn.{operator}({kernel}, output_size={size})")
    return d.emit(f"{layer}({x})", x.kind, "pooled")


def _whole_ratio(d: Draft, side: int, kernel: int) -> int:
    """An output size for which all windows have the same integer step; the one nearest to half the side."""
    outs = [out for out in range(2, side - kernel + 1) if (side - kernel) % (out - 1) == 0]
    if not outs:
        raise CannotWrite("no whole ratio")
    return min(outs, key=lambda out: abs(2 * out - side))


def unpool(d: Draft, x: Value, operator: str) -> Value:
    """Write a max-pooling first: it gives the indices that MaxUnpool needs."""
    rank = _check_rank(x, operator)
    if any(size % 2 for size in x.spatial) or min(x.spatial) < 4:
        raise CannotWrite("the sides are odd or short")
    pool = d.attribute("pool", f"nn.MaxPool{rank}d(2, stride=2, return_indices=True)")
    pooled, indices = d.emit_many(f"{pool}({x})", (x.kind, x.kind), ("pooled", "indices"), "{}, {}")
    layer = d.attribute("unpool", f"nn.{operator}(2, stride=2)")
    return d.emit(f"{layer}({pooled}, {indices})", x.kind, "h")


PAD_MODES = {"ReflectionPad": "reflect", "ReplicationPad": "replicate", "CircularPad": "circular"}


def pad(d: Draft, x: Value, operator: str) -> Value:
    rank = _check_rank(x, operator)
    amount = d.rng.choice((1, 1, 2))
    sides = str(amount)
    if d.rng.random() < 0.3:
        sides = f"({', '.join(str(d.rng.choice((1, 2))) for _ in range(2 * rank))})"
    if operator.startswith("ConstantPad"):
        sides += f", {d.rng.choice((0.5, 1.0, -1.0))}"
    return d.emit(f"{d.attribute('pad', f'nn.{operator}({sides})')}({x})", x.kind, "padded")


def upsample(d: Draft, x: Value, operator: str) -> Value:
    _check_rank(x, operator)
    if operator == "UpsamplingNearest2d" or operator == "UpsamplingBilinear2d":
        text = f"nn.{operator}(scale_factor=2)"
    else:
        smooth = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(x.spatial)]
        mode = d.rng.choice(('"nearest"', f'"{smooth}", align_corners=False'))
        if d.rng.random() < 0.4:
            return d.emit(f"F.interpolate({x}, scale_factor=2, mode={mode})", x.kind, "upsampled")
        text = f"nn.Upsample(scale_factor=2, mode={mode})"
    return d.emit(f"{d.attribute('upsample', text)}({x})", x.kind, "upsampled")


_RANKS = (1, 2, 3)
WRITERS = {
    **{f"{f}{r}d": window for f in ("MaxPool", "AvgPool", "LPPool") for r in _RANKS},
    "MaxPool": window,
    "AvgPool": window,
    **{f"Adaptive{f}Pool{r}d": adaptive for f in ("Avg", "Max") for r in _RANKS},
    "GlobalAvgPool": global_average,
    "FractionalMaxPool2d": fractional,
    "FractionalMaxPool3d": fractional,
    **{f"MaxUnpool{r}d": unpool for r in _RANKS},
    **{
        f"{f}Pad{r}d": pad
        for f in ("Zero", "Reflection", "Replication", "Circular", "Constant")
        for r in _RANKS
    },
    "Upsample": upsample,
    "UpsamplingNearest2d": upsample,
    "UpsamplingBilinear2d": upsample,
}
