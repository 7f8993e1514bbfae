"""Attention and the library's transformer layers."""

from __future__ import annotations

from synth_core.operators.operator import Kind
from synth_core.synthesis import extents
from synth_core.synthesis.draft import CannotWrite, Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.writers.dense import width_text


def attention(d: Draft, x: Value, operator: str) -> Value:
    text = f"nn.MultiheadAttention({width_text(d, x)}, {heads(d, x)}, batch_first=True)"
    layer = d.attribute(d.choose("attn", "attention"), text)
    other = _other(d, x) if d.rng.random() < 0.4 else x
    return d.emit_many(
        f"{layer}({x}, {other}, {other}, need_weights=False)", (x.kind,), ("attended",), "{}, _"
    )[0]


def layer(d: Draft, x: Value, operator: str) -> Value:
    stack = not operator.endswith("Layer")
    kind = "Decoder" if "Decoder" in operator else "Encoder"
    options = [
        width_text(d, x),
        f"nhead={heads(d, x)}",
        f"dim_feedforward={_inner(d, x)}",
    ]
    if d.rng.random() < 0.3:
        options.append('activation="gelu"')
    if d.rng.random() < 0.3:
        options.append("norm_first=True")
    text = f"nn.Transformer{kind}Layer({', '.join(options)}, batch_first=True)"
    if stack:
        # Nested tensors need a padding mask to be useful, and torch warns about them with norm_first.
        nested = ", enable_nested_tensor=False" if kind == "Encoder" else ""
        text = f"nn.Transformer{kind}({text}, num_layers={d.rng.choice((1, 2))}{nested})"
    name = d.attribute(kind.lower(), text)
    x_read = _contiguous(x)
    call = f"{name}({x_read}, {_other(d, x)})" if kind == "Decoder" else f"{name}({x_read})"
    return d.emit(call, x.kind, "decoded" if kind == "Decoder" else "encoded")


def transformer(d: Draft, x: Value, operator: str) -> Value:
    options = f"d_model={width_text(d, x)}, nhead={heads(d, x)}, num_encoder_layers=1, num_decoder_layers=1"
    name = d.attribute(
        "transformer", f"nn.Transformer({options}, dim_feedforward={_inner(d, x)}, batch_first=True)"
    )
    return d.emit(f"{name}({_contiguous(x)}, {_other(d, x)})", x.kind, "decoded")


def _inner(d: Draft, x: Value) -> str:
    """Draw the width between the two layers of a feed-forward block."""
    return d.sizes.width(2 * x.channels, x.kind, d.env)


def heads(d: Draft, x: Value) -> int:
    counts = [n for n in (2, 4, 8) if x.channels % n == 0 and x.channels // n >= 4]
    if not counts or x.channels > 96:
        raise CannotWrite("the features do not split into heads")
    return d.rng.choice(counts)


def _contiguous(x: Value) -> str:
    """Text of x, contiguous if needed: Inductor's fast path fails with an assertion on a transposed input."""
    return str(x) if x.tensor.is_contiguous() else f"{x}.contiguous()"


def _other(d: Draft, x: Value) -> Value:
    """A second sequence with the same features: a value that nothing reads yet, or a new input."""
    fits = [
        v for v in d.dangling() if v.kind is Kind.SEQUENCE and v is not x and v.tensor.is_floating_point()
    ]
    fits = [v for v in fits if v.shape[0] == x.shape[0] and v.channels == x.channels]
    if fits:
        return fits[-1]
    extents.texts(d, x)
    return d.input(Kind.SEQUENCE, d.choose("memory", "context"), like=x)


WRITERS = {
    "MultiheadAttention": attention,
    **dict.fromkeys(
        ("TransformerEncoderLayer", "TransformerDecoderLayer", "TransformerEncoder", "TransformerDecoder"),
        layer,
    ),
    "Transformer": transformer,
}
