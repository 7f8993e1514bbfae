"""Normalisations."""

from __future__ import annotations

from synth_core.operators.operator import Kind
from synth_core.synthesis import extents
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.writers.dense import width_text


def per_channel(d: Draft, x: Value, operator: str) -> Value:
    """BatchNorm and InstanceNorm. Names without a rank take the rank that fits x."""
    if x.kind is Kind.SEQUENCE:
        raise CannotWrite("channels come last in a sequence")
    family = operator.rstrip("d123")
    layer = f"{family}{max(len(x.spatial), 1)}d"
    if operator not in (family, layer):
        raise CannotWrite("another number of spatial axes")
    if family == "BatchNorm":
        # With fresh running statistics, it would only divide by sqrt(1 + 1e-5) in eval mode.
        if x.tensor.numel() // x.channels < 4:
            raise CannotWrite("too few values for statistics of the batch")
        hint, option = d.choose("bn", "norm"), ", track_running_stats=False"
    else:
        hint, option = "norm", d.choose("", ", affine=True")
    return d.emit(f"{d.attribute(hint, f'nn.{layer}({width_text(d, x)}{option})')}({x})", x.kind, "h")


def layer_norm(d: Draft, x: Value, operator: str) -> Value:
    if x.axis == -1:
        shape = width_text(d, x)
    else:
        sizes = extents.texts(d, x)[1 if d.rng.random() < 0.5 else -1 :]
        shape = f"[{', '.join(sizes)}]" if len(sizes) > 1 else sizes[0]
    return d.emit(f"{d.attribute('norm', f'nn.{operator}({shape})')}({x})", x.kind, "h")


def group_norm(d: Draft, x: Value, operator: str) -> Value:
    groups = [g for g in (2, 4, 8) if x.channels % g == 0]
    if x.kind is Kind.VECTOR:
        groups = [g for g in groups if x.channels // g >= 4]
    if not groups:
        raise CannotWrite("no usual number of groups divides the channels")
    text = f"nn.GroupNorm({d.rng.choice(groups)}, {width_text(d, x)})"
    return d.emit(f"{d.attribute('norm', text)}({x})", x.kind, "h")


def local_response(d: Draft, x: Value, operator: str) -> Value:
    # Also for CrossMapLRN2d, whose own resize_as_ breaks the graph of torch.compile.
    size = d.rng.choice((3, 5))
    extra = d.rng.choice((f"{size}", f"{size}, alpha=0.5", f"{size}, alpha=0.1, beta=0.75, k=1.0"))
    return d.emit(f"{d.attribute('lrn', f'nn.LocalResponseNorm({extra})')}({x})", x.kind, "h")


WRITERS = {
    **{
        f"{family}{rank}": per_channel
        for family in ("BatchNorm", "InstanceNorm")
        for rank in ("", "1d", "2d", "3d")
    },
    "LayerNorm": layer_norm,
    "RMSNorm": layer_norm,
    "GroupNorm": group_norm,
    "LocalResponseNorm": local_response,
    "CrossMapLRN2d": local_response,
}
