"""Rows of the supporting group, section by section."""

from __future__ import annotations

from synth_core.operators.operator import (
    ANY,
    KIND_OF_RANK,
    SPATIAL,
    Group,
    Kind,
    Operator,
    spelled,
)


def _row(
    name: str, functions: str = "", kinds: tuple[Kind, ...] = ANY, torch_name: str = "", **more: object
) -> Operator:
    return Operator(
        name=name,
        group=Group.SUPPORTING,
        torch_name=torch_name or f"torch.nn.{name}",
        kinds=kinds,
        realised_by=spelled(functions),
        **more,  # type: ignore[arg-type]
    )


def _ranks(
    name: str, functions: str = "", ranks: tuple[int, ...] = (1, 2, 3), fold: str = ""
) -> list[Operator]:
    """One row for each number of spatial axes; `{}` in `functions` stands for it."""
    return [
        _row(f"{name}{rank}d", functions.replace("{}", str(rank)), (KIND_OF_RANK[rank],), folds_to=fold)
        for rank in ranks
    ]


def _special_cases(name: str) -> tuple[str, ...]:
    return tuple(f"{name}{rank}d" for rank in KIND_OF_RANK)


_ACTIVATIONS = (
    _row("ReLU", "F.relu relu"),
    _row("Sigmoid", "F.sigmoid sigmoid torch.special.expit"),
    _row("Tanh", "F.tanh tanh"),
    _row("LeakyReLU", "F.leaky_relu"),
    _row("GELU", "F.gelu"),
    _row("SiLU", "F.silu", aliases=("Swish",)),
    _row("Softmax", "F.softmax softmax torch.special.softmax"),
    _row("Mish", "F.mish"),
    _row("Hardtanh", "F.hardtanh", aliases=("HardTanh",)),
    _row("Hardswish", "F.hardswish", aliases=("HardSwish",)),
    _row("ELU", "F.elu"),
    _row("CELU", "F.celu torch.celu"),
    _row("SELU", "F.selu torch.selu"),
    _row("ReLU6", "F.relu6"),
    _row("PReLU", "F.prelu prelu"),
    _row("RReLU", "F.rrelu torch.rrelu"),
    _row("LogSigmoid", "F.logsigmoid"),
    _row("Softmin", "F.softmin"),
    _row("Softplus", "F.softplus"),
    _row("Softsign", "F.softsign"),
    _row("Softshrink", "F.softshrink"),
    _row("Hardshrink", "F.hardshrink hardshrink"),
    _row("Hardsigmoid", "F.hardsigmoid", aliases=("HardSigmoid",)),
    _row("GLU", "F.glu"),
    _row("Tanhshrink", "F.tanhshrink"),
    _row("Threshold", "F.threshold torch.threshold"),
    _row("LogSoftmax", "F.log_softmax log_softmax torch.special.log_softmax"),
    _row("Softmax2d", "", (Kind.IMAGE,)),
)

_ELEMENTWISE = (
    _row("Add", "add T.__radd__", ANY, "torch.add", answered_by=("ResidualAdd", "BiasAdd")),
    _row("Multiply", "mul multiply T.__rmul__", ANY, "torch.mul", aliases=("Mul",), answered_by=("Scale",)),
    _row(
        "Subtract",
        "sub subtract torch.rsub T.__rsub__",
        ANY,
        "torch.sub",
        aliases=("Sub",),
    ),
    _row("Divide", "div divide true_divide T.__rtruediv__ T.__rdiv__", ANY, "torch.div", aliases=("Div",)),
    _row("Clamp", "clamp clip clamp_min clamp_max", ANY, "torch.clamp"),
    # The next three are read from how an Add or a Multiply is used: operators/recognise.py.
    _row("Scale", "", ANY, "torch.mul", aliases=("Scaling",), folds_to="Multiply"),
    _row("ResidualAdd", "", ANY, "torch.add", folds_to="Add"),
    _row("BiasAdd", "", ANY, "torch.add", folds_to="Add"),
    _row("Identity", no_op_in_eval=True),
    _row("CosineSimilarity", "F.cosine_similarity torch.cosine_similarity"),
    _row("PairwiseDistance", "F.pairwise_distance torch.pairwise_distance"),
)

_NORMALISATION = (
    _row("BatchNorm", "F.batch_norm torch.batch_norm", ANY, "torch.nn.functional.batch_norm",
         answered_by=_special_cases("BatchNorm")),
    _row("BatchNorm1d", "", (Kind.VECTOR, Kind.SIGNAL), folds_to="BatchNorm"),
    *_ranks("BatchNorm", ranks=(2, 3), fold="BatchNorm"),
    _row("LayerNorm", "F.layer_norm torch.layer_norm"),
    _row("InstanceNorm", "F.instance_norm torch.instance_norm", SPATIAL, "torch.nn.functional.instance_norm",
         answered_by=_special_cases("InstanceNorm")),
    *_ranks("InstanceNorm", fold="InstanceNorm"),
    _row("GroupNorm", "F.group_norm torch.group_norm", (Kind.VECTOR, *SPATIAL)),
    _row("LocalResponseNorm", "F.local_response_norm", SPATIAL),
    _row("CrossMapLRN2d", "", (Kind.IMAGE,)),
    _row("RMSNorm", "F.rms_norm torch.rms_norm"),
)  # fmt: skip

_POOLING = (
    _row("MaxPool", "", SPATIAL, "torch.nn.functional.max_pool2d", answered_by=_special_cases("MaxPool")),
    *_ranks("MaxPool", "F.max_pool{}d F.max_pool{}d_with_indices torch.max_pool{}d", fold="MaxPool"),
    _row("AvgPool", "", SPATIAL, "torch.nn.functional.avg_pool2d", answered_by=_special_cases("AvgPool")),
    *_ranks("AvgPool", "F.avg_pool{}d", fold="AvgPool"),
    _row("GlobalAvgPool", "", SPATIAL, "torch.nn.functional.adaptive_avg_pool2d",
         aliases=("GlobalAveragePool",), answered_by=_special_cases("AdaptiveAvgPool")),
    *_ranks("AdaptiveAvgPool", "F.adaptive_avg_pool{}d"),
    *_ranks("AdaptiveMaxPool", "F.adaptive_max_pool{}d F.adaptive_max_pool{}d_with_indices"),
    *_ranks("FractionalMaxPool", "F.fractional_max_pool{}d", (2, 3)),
    *_ranks("LPPool", "F.lp_pool{}d"),
    *_ranks("MaxUnpool", "F.max_unpool{}d"),
)  # fmt: skip

_REDUCTIONS = (
    _row("Sum", "sum nansum", ANY, "torch.sum"),
    _row("Mean", "mean nanmean", ANY, "torch.mean", answered_by=("GlobalAvgPool",)),
    _row("Max", "max amax", ANY, "torch.amax"),
    _row("Min", "min amin", ANY, "torch.amin"),
    _row("LogSumExp", "logsumexp torch.special.logsumexp", ANY, "torch.logsumexp"),
)

_REGULARISATION = tuple(
    _row(name, functions, kinds, no_op_in_eval=True)
    for name, functions, kinds in (
        ("Dropout", "F.dropout torch.dropout", ANY),
        ("Dropout1d", "F.dropout1d", (Kind.SIGNAL,)),
        ("Dropout2d", "F.dropout2d", (Kind.IMAGE,)),
        ("Dropout3d", "F.dropout3d", (Kind.VOLUME,)),
        ("AlphaDropout", "F.alpha_dropout torch.alpha_dropout", ANY),
        ("FeatureAlphaDropout", "F.feature_alpha_dropout torch.feature_alpha_dropout", SPATIAL),
    )
)

_RESHAPING = (
    _row("Fold", "F.fold", (Kind.SIGNAL, Kind.SEQUENCE)),
    _row("Unfold", "F.unfold", (Kind.IMAGE,)),
    _row("Flatten", "flatten"),
    _row("Unflatten", "unflatten"),
    _row("ChannelShuffle", "F.channel_shuffle torch.channel_shuffle", SPATIAL),
    _row("PixelShuffle", "F.pixel_shuffle torch.pixel_shuffle", (Kind.IMAGE,)),
    _row("PixelUnshuffle", "F.pixel_unshuffle torch.pixel_unshuffle", (Kind.IMAGE,)),
)

# F.pad serves all of these; operators/recognise.py tells them apart by its arguments.
_PADDING = tuple(
    row
    for name in ("ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad", "ConstantPad")
    for row in _ranks(name)
)

_UPSAMPLING = (
    _row("Upsample", "F.interpolate F.upsample", SPATIAL,
         answered_by=("UpsamplingNearest2d", "UpsamplingBilinear2d")),
    _row("UpsamplingNearest2d", "F.upsample_nearest", (Kind.IMAGE,)),
    _row("UpsamplingBilinear2d", "F.upsample_bilinear", (Kind.IMAGE,)),
)  # fmt: skip

SUPPORTING: tuple[Operator, ...] = (
    *_ACTIVATIONS,
    *_ELEMENTWISE,
    *_NORMALISATION,
    *_POOLING,
    *_REDUCTIONS,
    *_REGULARISATION,
    *_RESHAPING,
    *_PADDING,
    *_UPSAMPLING,
)
