"""Dense layers and matrix products."""

from __future__ import annotations

from synth_core.errors import CannotWrite
from synth_core.operators.operator import Kind
from synth_core.synthesis import extents
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.sizes import WIDTHS
from synth_core.synthesis.writers.arithmetic import partner

LARGEST = 512  # features in or out of a dense layer, at most


def new_width(d: Draft, x: Value, most: int = 128) -> int:
    """Draw a width for the next layer: doubled, halved, equal, or another usual width."""
    if d.sharing == "twice" and x.channels <= most:
        return x.channels
    near = [w for w in (x.channels * 2, x.channels // 2, x.channels) if 4 <= w <= most]
    return d.rng.choice([*near, *WIDTHS[x.kind]])


def width_text(d: Draft, x: Value) -> str:
    """Text of the number of features or channels of x, with the program's names."""
    return extents.channels(d, x)


def project(d: Draft, x: Value, out: int | Value, hint: str, read: str = "", bias: bool = True) -> str:
    """Text of a dense layer applied to x.

    out: the layer's width, or a value whose number of features it should match.
    read: text of another value with the features of x, to which the layer is applied instead.
    bias: False for keys, since a softmax over them cancels their bias.
    """
    wide = width_text(d, out) if isinstance(out, Value) else d.sizes.width(out, x.kind, d.env)
    option = "" if bias else ", bias=False"
    layer = d.attribute(hint, f"nn.Linear({width_text(d, x)}, {wide}{option})")
    return f"{layer}({read or x})"


def weight_of(d: Draft, x: Value) -> tuple[str, str]:
    """Add a weight for a matrix product with x. Returns its text, and the text of its output features."""
    size, out = width_text(d, x), d.sizes.width(new_width(d, x), x.kind, d.env)
    return d.parameter("weight", f"torch.randn({size}, {out}){gain(d, size)}"), out


def gain(d: Draft, fan_in: str) -> str:
    """Text of a factor 1 / sqrt(fan_in). It keeps the variance of a product near that of its input."""
    return d.choose(f" / math.sqrt({fan_in})", f" * {extents.power(fan_in)}")


def linear(d: Draft, x: Value, operator: str) -> Value:
    if x.channels > LARGEST:
        raise CannotWrite("too many features")
    out = d.sizes.width(new_width(d, x), x.kind, d.env)
    bias = d.rng.choices(("", ", bias=False"), (4, 1))[0]
    layer = d.attribute(d.choose("fc", "linear", "proj"), f"nn.Linear({width_text(d, x)}, {out}{bias})")
    return d.emit(f"{layer}({x})", x.kind, "h")


def bilinear(d: Draft, x: Value, operator: str) -> Value:
    """Join x with a value that has the same leading axes and any number of features."""
    lead = x.shape[:-1]
    unread = d.dangling()
    others = [v for v in unread if v.kind is x.kind and v.shape[:-1] == lead and v is not x]
    others = [v for v in others if v.tensor.is_floating_point() and v.channels * x.channels <= 4096]
    y = others[-1] if others else partner(d, x)
    if x.channels * y.channels > 4096:
        raise CannotWrite("too many pairs of features")
    out = d.sizes.width(d.rng.choice((16, 24, 32)), x.kind, d.env)
    first, second = width_text(d, x), width_text(d, y)
    layer = d.attribute("bilinear", f"nn.Bilinear({first}, {second}, {out})")
    return d.emit(f"{layer}({x}, {y})", x.kind, "h")


def matmul(d: Draft, x: Value, operator: str) -> Value:
    if x.channels > LARGEST:
        raise CannotWrite("too many features")
    if x.kind is Kind.SEQUENCE and d.rng.random() < 0.35:
        y = partner(d, x)
        text = d.choose(f"torch.matmul({x}, {y}.transpose(1, 2))", f"{x} @ {y}.transpose(-2, -1)")
        return d.emit(text, x.kind, "scores")
    weight, _ = weight_of(d, x)
    text = d.choose(f"torch.matmul({x}, {weight})", f"{x} @ {weight}", f"{x}.matmul({weight})")
    return d.emit(text, x.kind, "h")


def gemm(d: Draft, x: Value, operator: str) -> Value:
    if x.channels > LARGEST:
        raise CannotWrite("too many features")
    weight, out = weight_of(d, x)
    bias = d.parameter("bias", f"torch.randn({out})")
    return d.emit(f"torch.addmm({bias}, {x}, {weight})", x.kind, "h")


def bmm(d: Draft, x: Value, operator: str) -> Value:
    y = partner(d, x)
    first, second = f"{x}", f"{y}.transpose(1, 2)"
    if d.rng.random() < 0.25:
        first, second = f"{x}.transpose(1, 2)", f"{y}"
    text = d.rng.choices((f"torch.bmm({first}, {second})", f"{first}.bmm({second})"), (4, 1))[0]
    return d.emit(text, x.kind, "scores")


WRITERS = {"Linear": linear, "Bilinear": bilinear, "Matmul": matmul, "Gemm": gemm, "BMM": bmm}
