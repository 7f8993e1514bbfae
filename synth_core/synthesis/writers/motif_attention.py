"""Motifs for sequences: kinds of attention, scans, masks."""

from __future__ import annotations

from synth_core.errors import CannotWrite
from synth_core.operators.operator import Kind
from synth_core.synthesis import extents
from synth_core.synthesis.draft import Draft
from synth_core.synthesis.parts import Value
from synth_core.synthesis.writers.dense import project, width_text
from synth_core.synthesis.writers.recurrence import MOST_STEPS
from synth_core.synthesis.writers.transformer import heads

_S = Kind.SEQUENCE


def attention(d: Draft, x: Value, operator: str) -> Value:
    """Attention over heads of x, with one fused call or with its single steps."""
    count = heads(d, x)
    query = d.emit(_split(project(d, x, x, "q_proj"), count), _S, "q")
    key = d.emit(_split(project(d, x, x, "k_proj", bias=False), count), _S, "k")
    value = d.emit(_split(project(d, x, x, "v_proj"), count), _S, "v")
    fused = d.rng.random() < 0.5
    if fused:
        causal = ", is_causal=True" if operator == "CausalAttention" else ""
        out = d.emit(f"F.scaled_dot_product_attention({query}, {key}, {value}{causal})", _S, "out")
    else:
        scale = _scale(d, x, query, count)
        scores = d.emit(f"torch.matmul({query}, {key}.transpose(-2, -1)){scale}", _S, "scores")
        if operator == "CausalAttention":
            steps = f"{x}.shape[1]"
            mask = d.emit(
                f"torch.ones({steps}, {steps}, dtype=torch.bool, device={x}.device).triu(1)", _S, "mask"
            )
            scores = d.emit(f'{scores}.masked_fill({mask}, float("-inf"))', _S, "scores")
        out = d.emit(f"torch.matmul({scores}.softmax(dim=-1), {value})", _S, "out")
    merged = f"{out}.transpose(1, 2).reshape({x}.shape)"
    layer = d.attribute("out_proj", f"nn.Linear({width_text(d, x)}, {width_text(d, x)})")
    return d.emit(f"{layer}({merged})", _S, "h")


def _scale(d: Draft, x: Value, query: Value, count: int) -> str:
    """Text of 1 / sqrt(features of a head)."""
    root = extents.power(extents.part(width_text(d, x), count))
    return d.choose(
        f" * {query}.shape[-1] ** -0.5",
        f" / math.sqrt({query}.shape[-1])",
        f" / math.sqrt({query}.size(-1))",
        f" * {d.attribute('scale', root)}",
    )


def _split(text: str, count: int) -> str:
    return f"{text}.unflatten(-1, ({count}, -1)).transpose(1, 2)"


def grouped_query(d: Draft, x: Value, operator: str) -> Value:
    """Fewer heads of keys and values than of queries."""
    count = heads(d, x)
    shared = count // 2
    narrow_width = extents.part(width_text(d, x), 2)
    query = d.emit(_split(project(d, x, x, "q_proj"), count), _S, "q")
    pair = []
    for hint, option in (("k", ", bias=False"), ("v", "")):
        layer = d.attribute(f"{hint}_proj", f"nn.Linear({width_text(d, x)}, {narrow_width}{option})")
        narrow = d.emit(_split(f"{layer}({x})", shared), _S, hint)
        pair.append(d.emit(f"{narrow}.repeat_interleave({count // shared}, dim=1)", _S, hint))
    out = d.emit(f"F.scaled_dot_product_attention({query}, {pair[0]}, {pair[1]})", _S, "out")
    return d.emit(f"{out}.transpose(1, 2).flatten(2)", _S, "h")


def rotary(d: Draft, x: Value, operator: str) -> Value:
    """Rotate pairs of features by angles that grow with the position."""
    if x.channels % 2:
        raise CannotWrite("an odd number of features has no pairs")
    steps = f"torch.arange({x}.shape[1], device={x}.device).unsqueeze(1)"
    powers = f"torch.arange(0, {x}.shape[-1], 2, device={x}.device) / {x}.shape[-1]"
    freqs = d.emit(f"100.0 ** -({powers})", _S, "freqs")
    angles = d.emit(f"{steps} * {freqs}", _S, "angles")
    angles = d.emit(f"torch.cat([{angles}, {angles}], dim=-1)", _S, "angles")
    first, second = d.emit_many(f"{x}.chunk(2, dim=-1)", (_S, _S), ("x1", "x2"), "{}, {}")
    turned = d.emit(f"torch.cat([-{second}, {first}], dim=-1)", _S, "rotated")
    return d.emit(f"{x} * {angles}.cos() + {turned} * {angles}.sin()", _S, "h")


def linear_attention(d: Draft, x: Value, operator: str) -> Value:
    """Multiply keys with values first, so that the cost is linear in the number of steps, not quadratic."""
    query = d.emit(f"{project(d, x, x, 'q_proj')}.softmax(dim=-1)", _S, "q")
    key = d.emit(f"{project(d, x, x, 'k_proj', bias=False)}.softmax(dim=1)", _S, "k")
    context = d.emit(f"torch.matmul({key}.transpose(1, 2), {project(d, x, x, 'v_proj')})", _S, "context")
    return d.emit(f"torch.matmul({query}, {context})", _S, "h")


def attention_pooling(d: Draft, x: Value, operator: str) -> Value:
    score = d.attribute("score", f"nn.Linear({width_text(d, x)}, 1, bias=False)")
    weights = d.emit(f"torch.softmax({score}({x}), dim=1)", _S, "weights")
    return d.emit(f"({x} * {weights}).sum(dim=1)", Kind.VECTOR, "pooled")


def _mask(d: Draft, x: Value) -> Value:
    """Add a boolean input: which steps of each row are valid."""
    batch, steps = extents.texts(d, x)[:2]
    return d.input_from(f"torch.rand({batch}, {steps}) > 0.3", (batch, steps), Kind.VECTOR, "mask")


def masked_softmax(d: Draft, x: Value, operator: str) -> Value:
    mask = _mask(d, x)
    text = f"{x}.masked_fill(~{mask}.unsqueeze(-1), -1e4)"
    return d.emit(f"torch.softmax({text}, dim=1)", _S, "weights")


def masked_mean(d: Draft, x: Value, operator: str) -> Value:
    mask = _mask(d, x)
    kept = d.emit(f"{mask}.unsqueeze(-1).to({x}.dtype)", _S, "kept")
    return d.emit(f"({x} * {kept}).sum(dim=1) / {kept}.sum(dim=1).clamp(min=1.0)", Kind.VECTOR, "pooled")


def scan(d: Draft, x: Value, operator: str) -> Value:
    """A diagonal state-space layer: the state decays with a learned rate, and each step's input is added."""
    if x.shape[1] > MOST_STEPS:
        raise CannotWrite("too many steps to unroll")
    rate = d.parameter("log_decay", f"-torch.rand({width_text(d, x)}) - 0.1")
    gate = d.parameter("gain", f"torch.rand({width_text(d, x)}) + 0.5")
    text = (
        f"state = torch.zeros_like({x}[:, 0])\nsteps = []\nfor t in range({x}.shape[1]):\n"
        f"    state = torch.exp({rate}) * state + {gate} * {x}[:, t]\n    steps.append(state)\n"
        "{out} = torch.stack(steps, dim=1)"
    )
    return d.block(text, _S, "h")


def positions(d: Draft, x: Value | None, operator: str) -> Value:
    """Token and position embeddings, added."""
    batch, steps, width = d.sizes.shape(_S, d.env)
    size = d.sizes.constant("vocab_size", d.sizes.constants.get("vocab_size") or 64, d.env)
    rows = f"torch.randint(0, {size}, ({batch}, {steps}))"
    tokens = d.input_from(rows, (batch, steps), _S, d.choose("tokens", "input_ids"))
    table = d.attribute("token_embedding", f"nn.Embedding({size}, {width})")
    places = d.attribute("position_embedding", f"nn.Embedding({steps}, {width})")
    order = f"torch.arange({tokens}.shape[1], device={tokens}.device)"
    h = d.emit(f"{table}({tokens}) + {places}({order})", _S, "h")
    if x is None:
        return h
    if x.shape != h.shape:
        raise CannotWrite("the features differ")
    return d.emit(f"{x} + {h}", _S, "h", role="merge")


def gram(d: Draft, x: Value, operator: str) -> Value:
    """Scaled inner products of all pairs of steps or channels."""
    text = f"torch.bmm({x}, {x}.transpose(1, 2))"
    scale = d.choose("/ {}.shape[-1]", "* {}.shape[-1] ** -0.5", "/ math.sqrt({}.shape[-1])").format(x)
    return d.emit(f"{text} {scale}", x.kind, "gram")


def windows(d: Draft, x: Value, operator: str) -> Value:
    axis, length = (1, x.shape[1]) if x.kind is _S else (2, x.shape[2])
    size = d.rng.choice((2, 3, 4))
    if length < 2 * size:
        raise CannotWrite("too few windows")
    reduce = d.choose("mean", "amax")
    return d.emit(f"{x}.unfold({axis}, {size}, {size}).{reduce}(dim=-1)", x.kind, "h")


def statistics(d: Draft, x: Value, operator: str) -> Value:
    axes = "1" if x.kind is _S else str(tuple(range(2, len(x.shape)))) if len(x.spatial) > 1 else "2"
    return d.emit(f"torch.cat([{x}.mean(dim={axes}), {x}.std(dim={axes})], dim=-1)", Kind.VECTOR, "stats")


WRITERS = {
    **dict.fromkeys(("ScaledDotProductAttention", "CausalAttention"), attention),
    "GroupedQueryAttention": grouped_query,
    "RotaryEmbedding": rotary,
    "LinearAttention": linear_attention,
    "AttentionPooling": attention_pooling,
    "MaskedSoftmax": masked_softmax,
    "MaskedMean": masked_mean,
    "StateSpaceScan": scan,
    "PositionalEmbedding": positions,
    "GramMatrix": gram,
    "WindowedPooling": windows,
    "StatisticsPooling": statistics,
}
