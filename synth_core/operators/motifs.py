"""Rows of the motif group: small patterns of several operators that have a common name.

A motif is recognised as a sub-graph; operators/patterns.py defines the syntax of patterns. The parts of a
motif count as realised too. Patterns are tried in this order, so special ones come before general ones.
"""

from __future__ import annotations

from synth_core.operators.operator import ANY, TOKENS, Group, Kind, Operator

_V, _S, _C, _I = Kind.VECTOR, Kind.SEQUENCE, Kind.SIGNAL, Kind.IMAGE


def _row(
    name: str,
    torch_name: str,
    kinds: tuple[Kind, ...],
    *patterns: str,
    answered_by: tuple[str, ...] = (),
) -> Operator:
    return Operator(
        name=name,
        group=Group.MOTIF,
        section="motif",
        torch_name=f"torch.{torch_name}",
        kinds=kinds,
        patterns=patterns,
        answered_by=answered_by,
    )


def _gated(name: str, activation: str) -> Operator:
    return _row(name, "mul", TOKENS, f"Multiply({activation}(Linear(a)), Linear(a))")


_LAYER = "Conv2d|Linear|Conv1d"
_SQUEEZED = "GlobalAvgPool|AdaptiveAvgPool2d|AdaptiveAvgPool1d|Mean(x)"
_ATTENTION = "nn.functional.scaled_dot_product_attention"

MOTIFS: tuple[Operator, ...] = (
    _row(
        "GroupedQueryAttention",
        _ATTENTION,
        (_S,),
        "scaled_dot_product_attention(q, repeat_interleave(k), repeat_interleave(v))",
        "scaled_dot_product_attention[gqa](q, k, v)",
    ),
    _row(
        "CausalAttention",
        _ATTENTION,
        (_S,),
        "scaled_dot_product_attention[causal](q, k, v)",
        "Matmul(Softmax(masked_fill(*(Matmul(q, k)))), v)",
        "Matmul(Softmax(masked_fill(Divide(Matmul(q, k)))), v)",
    ),
    _row(
        "ScaledDotProductAttention",
        _ATTENTION,
        (_S,),
        "scaled_dot_product_attention(q, k, v)",
        "Matmul|BMM(Softmax(*(Matmul|BMM(q, k))), v)",
        "Matmul|BMM(Softmax(Divide(Matmul|BMM(q, k))), v)",
        answered_by=("CausalAttention", "GroupedQueryAttention"),
    ),
    _row("RotaryEmbedding", "cos", (_S,), "+(*(x, c), *(cat(neg(x), x), s))"),
    _row("LinearAttention", "matmul", (_S,), "Matmul(Softmax(q), Matmul(Softmax(k), v))"),
    _row("AttentionPooling", "softmax", (_S,), "Sum(*(Softmax(Linear(x)), x))"),
    _row("MaskedSoftmax", "Tensor.masked_fill", (_S,), "Softmax(masked_fill(x))"),
    _gated("SwiGLU", "SiLU"),
    _gated("GeGLU", "GELU"),
    _gated("ReGLU", "ReLU"),
    _gated("GatedLinearUnit", "Sigmoid"),
    _row("HighwayGate", "lerp", TOKENS, "+(*(Sigmoid(g), a), *(Subtract(Sigmoid(g)), x))"),
    _row("FiLM", "mul", (_V, _C, _I), "+(*(x, +(Linear(c))), Linear(c))", "+(*(x, Linear(c)), Linear(c))"),
    _row("LogitSoftcap", "tanh", TOKENS, "*(Tanh(Divide(x)))"),
    _row("ManualRMSNorm", "rsqrt", TOKENS, "*(x, rsqrt(+(Mean(pow(x)))))"),
    _row("ManualLayerNorm", "var", TOKENS, "Divide(Subtract(x, Mean(x)), sqrt(+(var(x))))"),
    _row("LayerScale", "mul", (_V, _S, _I), "ResidualAdd(x, Scale[parameter](~Linear|Conv2d(y)))"),
    _row(
        "SqueezeExcite",
        "nn.functional.adaptive_avg_pool2d",
        (_C, _I),
        f"Multiply(x, Sigmoid|Hardsigmoid({_LAYER}(ReLU|SiLU({_LAYER}({_SQUEEZED})))))",
    ),
    _row(
        "InvertedBottleneck",
        "nn.Conv2d",
        (_I,),
        "Conv2d[pointwise](~Conv2d[depthwise](~Conv2d[pointwise](x)))",
    ),
    _row(
        "DepthwiseSeparableConv",
        "nn.Conv2d",
        (_I,),
        "Conv2d[pointwise](~Conv2d[depthwise](x))",
        answered_by=("InvertedBottleneck",),
    ),
    _row("FeaturePyramidMerge", "nn.functional.interpolate", (_I,), "+(Upsample(a), Conv2d[pointwise](b))"),
    _row("ResidualBlock", "nn.Conv2d", (_I,), "ResidualAdd(x, ~Conv2d(~Conv2d(x)))"),
    _row(
        "PreNormFeedForward",
        "nn.LayerNorm",
        TOKENS,
        "ResidualAdd(x, Linear(ReLU|GELU|SiLU(Linear(LayerNorm|RMSNorm(x)))))",
    ),
    _row("LowRankAdapter", "nn.functional.linear", TOKENS, "+(Linear(x), *(Linear(Linear(x))))"),
    _row("MixtureOfExperts", "stack", TOKENS, "Sum(*(Softmax(Linear(x)), stack(Linear(x), Linear(x))))"),
    _row("PatchEmbedding", "nn.Conv2d", (_I,), "transpose(Flatten(Conv2d[patch](x)))"),
    _row("GemmEpilogue", "matmul", TOKENS, "ReLU|GELU|SiLU|Tanh(*(+(Matmul(x))))"),
    _row("GramMatrix", "bmm", (_S, _C), "Divide(BMM(x, x))", "*(BMM(x, x))"),
    _row("EinsumContraction", "einsum", (_S, _V), "einsum(a, b)"),
    _row("FactorizedBilinear", "mul", TOKENS, "Multiply(Tanh(Linear(a)), Tanh(Linear(b)))"),
    _row("StableSoftmax", "exp", ANY, "Divide(exp(Subtract(x, Max(x))), Sum(exp(y)))"),
    _row("FakeQuantize", "round", TOKENS, "*(Clamp(round(Divide(x, s))), s)"),
    _row("StateSpaceScan", "exp", (_S,), "+(*(exp(a), h), *(b, x))"),
    _row("MaskedMean", "sum", (_S,), "Divide(Sum(*(x, m)), Clamp(Sum(m)))"),
    _row(
        "CosineClassifier", "nn.functional.normalize", (_V,), "*(Linear|Matmul(normalize(x), normalize(w)))"
    ),
    _row("PrototypeDistance", "cdist", TOKENS, "cdist(x, p)"),
    _row("CrossEntropyHead", "nn.functional.cross_entropy", (_V,), "cross_entropy(x)"),
    _row("PositionalEmbedding", "nn.Embedding", (_S,), "+(Embedding(a), Embedding(b))"),
    _row("WindowedPooling", "Tensor.unfold", (_S, _C), "Mean|Max(unfold(x))"),
    _row("StatisticsPooling", "std", (_S, _C, _I), "cat(Mean|GlobalAvgPool(x), std(x))"),
)
