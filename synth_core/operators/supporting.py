"""Rows of the supporting group, section by section."""

from __future__ import annotations

from collections.abc import Callable

from synth_core.operators.operator import ANY, KIND_OF_RANK, SPATIAL, Group, Kind, Operator, section

_activation = section(Group.SUPPORTING, "activation", ANY)
_arithmetic = section(Group.SUPPORTING, "arithmetic", ANY)
_distance = section(Group.SUPPORTING, "distance", ANY)
_norm = section(Group.SUPPORTING, "normalisation", ANY)
_pool = section(Group.SUPPORTING, "pooling", SPATIAL)
_reduction = section(Group.SUPPORTING, "reduction", ANY)
_dropout = section(Group.SUPPORTING, "dropout", ANY)
_reshaping = section(Group.SUPPORTING, "reshaping", ANY)
_padding = section(Group.SUPPORTING, "padding", SPATIAL)
_upsampling = section(Group.SUPPORTING, "upsampling", SPATIAL)


def _ranks(
    row: Callable[..., Operator],
    name: str,
    functions: str = "",
    ranks: tuple[int, ...] = (1, 2, 3),
    folds_to: str = "",
) -> list[Operator]:
    """One row for each number of spatial axes. `{}` in `functions` is replaced by that number."""
    return [
        row(
            f"{name}{rank}d",
            functions.replace("{}", str(rank)),
            kinds=(KIND_OF_RANK[rank],),
            folds_to=folds_to,
        )
        for rank in ranks
    ]


def _special_cases(name: str) -> tuple[str, ...]:
    return tuple(f"{name}{rank}d" for rank in KIND_OF_RANK)


SUPPORTING: tuple[Operator, ...] = (
    _activation("ReLU", "F.relu relu"),
    _activation("Sigmoid", "F.sigmoid sigmoid torch.special.expit"),
    _activation("Tanh", "F.tanh tanh"),
    _activation("LeakyReLU", "F.leaky_relu"),
    _activation("GELU", "F.gelu"),
    _activation("SiLU", "F.silu", aliases=("Swish",)),
    _activation("Softmax", "F.softmax softmax torch.special.softmax"),
    _activation("Mish", "F.mish"),
    _activation("Hardtanh", "F.hardtanh", aliases=("HardTanh",)),
    _activation("Hardswish", "F.hardswish", aliases=("HardSwish",)),
    _activation("ELU", "F.elu"),
    _activation("CELU", "F.celu torch.celu"),
    _activation("SELU", "F.selu torch.selu"),
    _activation("ReLU6", "F.relu6"),
    _activation("PReLU", "F.prelu prelu"),
    _activation("RReLU", "F.rrelu torch.rrelu"),
    _activation("LogSigmoid", "F.logsigmoid"),
    _activation("Softmin", "F.softmin"),
    _activation("Softplus", "F.softplus"),
    _activation("Softsign", "F.softsign"),
    _activation("Softshrink", "F.softshrink"),
    _activation("Hardshrink", "F.hardshrink hardshrink"),
    _activation("Hardsigmoid", "F.hardsigmoid", aliases=("HardSigmoid",)),
    _activation("GLU", "F.glu"),
    _activation("Tanhshrink", "F.tanhshrink"),
    _activation("Threshold", "F.threshold torch.threshold"),
    _activation("LogSoftmax", "F.log_softmax log_softmax torch.special.log_softmax"),
    _activation("Softmax2d", kinds=(Kind.IMAGE,)),
    _arithmetic("Add", "add T.__radd__", torch_name="torch.add", answered_by=("ResidualAdd", "BiasAdd")),
    _arithmetic(
        "Multiply",
        "mul multiply T.__rmul__",
        torch_name="torch.mul",
        aliases=("Mul",),
        answered_by=("Scale",),
    ),
    _arithmetic("Subtract", "sub subtract torch.rsub T.__rsub__", torch_name="torch.sub", aliases=("Sub",)),
    _arithmetic(
        "Divide",
        "div divide true_divide T.__rtruediv__ T.__rdiv__",
        torch_name="torch.div",
        aliases=("Div",),
    ),
    _arithmetic("Clamp", "clamp clip clamp_min clamp_max", torch_name="torch.clamp"),
    # operators/recognise.py finds the next three from the use of an Add or a Multiply.
    _arithmetic("Scale", torch_name="torch.mul", aliases=("Scaling",), folds_to="Multiply"),
    _arithmetic("ResidualAdd", torch_name="torch.add", folds_to="Add"),
    _arithmetic("BiasAdd", torch_name="torch.add", folds_to="Add"),
    _arithmetic("Identity", no_op_in_eval=True),
    _distance("CosineSimilarity", "F.cosine_similarity torch.cosine_similarity"),
    _distance("PairwiseDistance", "F.pairwise_distance torch.pairwise_distance"),
    _norm(
        "BatchNorm",
        "F.batch_norm torch.batch_norm",
        torch_name="torch.nn.functional.batch_norm",
        answered_by=_special_cases("BatchNorm"),
    ),
    _norm("BatchNorm1d", kinds=(Kind.VECTOR, Kind.SIGNAL), folds_to="BatchNorm"),
    *_ranks(_norm, "BatchNorm", ranks=(2, 3), folds_to="BatchNorm"),
    _norm("LayerNorm", "F.layer_norm torch.layer_norm"),
    _norm(
        "InstanceNorm",
        "F.instance_norm torch.instance_norm",
        torch_name="torch.nn.functional.instance_norm",
        kinds=SPATIAL,
        answered_by=_special_cases("InstanceNorm"),
    ),
    *_ranks(_norm, "InstanceNorm", folds_to="InstanceNorm"),
    _norm("GroupNorm", "F.group_norm torch.group_norm", kinds=(Kind.VECTOR, *SPATIAL)),
    _norm("LocalResponseNorm", "F.local_response_norm", kinds=SPATIAL),
    _norm(
        "CrossMapLRN2d",
        kinds=(Kind.IMAGE,),
        answered_by=("LocalResponseNorm",),  # the same sum, with operations that can be traced
        folds_to="LocalResponseNorm",
        unwritable="its resize_as_ breaks the graph of torch.compile",
    ),
    _norm("RMSNorm", "F.rms_norm torch.rms_norm"),
    _pool("MaxPool", torch_name="torch.nn.functional.max_pool2d", answered_by=_special_cases("MaxPool")),
    *_ranks(
        _pool, "MaxPool", "F.max_pool{}d F.max_pool{}d_with_indices torch.max_pool{}d", folds_to="MaxPool"
    ),
    _pool("AvgPool", torch_name="torch.nn.functional.avg_pool2d", answered_by=_special_cases("AvgPool")),
    *_ranks(_pool, "AvgPool", "F.avg_pool{}d", folds_to="AvgPool"),
    _pool(
        "GlobalAvgPool",
        torch_name="torch.nn.functional.adaptive_avg_pool2d",
        aliases=("GlobalAveragePool",),
        answered_by=_special_cases("AdaptiveAvgPool"),
    ),
    *_ranks(_pool, "AdaptiveAvgPool", "F.adaptive_avg_pool{}d"),
    *_ranks(_pool, "AdaptiveMaxPool", "F.adaptive_max_pool{}d F.adaptive_max_pool{}d_with_indices"),
    *_ranks(
        _pool,
        "FractionalMaxPool",
        "F.fractional_max_pool{}d F.fractional_max_pool{}d_with_indices",
        ranks=(2, 3),
    ),
    *_ranks(_pool, "LPPool", "F.lp_pool{}d"),
    *_ranks(_pool, "MaxUnpool", "F.max_unpool{}d"),
    _reduction("Sum", "sum nansum", torch_name="torch.sum"),
    _reduction("Mean", "mean nanmean", torch_name="torch.mean", answered_by=("GlobalAvgPool",)),
    _reduction("Max", "max amax", torch_name="torch.amax"),
    _reduction("Min", "min amin", torch_name="torch.amin"),
    _reduction("LogSumExp", "logsumexp torch.special.logsumexp", torch_name="torch.logsumexp"),
    _dropout("Dropout", "F.dropout torch.dropout", no_op_in_eval=True),
    _dropout("Dropout1d", "F.dropout1d", kinds=(Kind.SIGNAL,), no_op_in_eval=True),
    _dropout("Dropout2d", "F.dropout2d", kinds=(Kind.IMAGE,), no_op_in_eval=True),
    _dropout("Dropout3d", "F.dropout3d", kinds=(Kind.VOLUME,), no_op_in_eval=True),
    _dropout("AlphaDropout", "F.alpha_dropout torch.alpha_dropout", no_op_in_eval=True),
    _dropout(
        "FeatureAlphaDropout",
        "F.feature_alpha_dropout torch.feature_alpha_dropout",
        kinds=SPATIAL,
        no_op_in_eval=True,
    ),
    _reshaping("Fold", "F.fold", kinds=(Kind.SEQUENCE, Kind.SIGNAL)),
    _reshaping("Unfold", "F.unfold", kinds=(Kind.IMAGE,)),
    _reshaping("Flatten", "flatten"),
    _reshaping("Unflatten", "unflatten"),
    _reshaping("ChannelShuffle", "F.channel_shuffle torch.channel_shuffle", kinds=SPATIAL),
    _reshaping("PixelShuffle", "F.pixel_shuffle torch.pixel_shuffle", kinds=(Kind.IMAGE,)),
    _reshaping("PixelUnshuffle", "F.pixel_unshuffle torch.pixel_unshuffle", kinds=(Kind.IMAGE,)),
    # Only their modules realise these. F.pad does not: its name is the same for all of them.
    *_ranks(_padding, "ZeroPad"),
    *_ranks(_padding, "ReflectionPad"),
    *_ranks(_padding, "ReplicationPad"),
    *_ranks(_padding, "CircularPad"),
    *_ranks(_padding, "ConstantPad"),
    _upsampling(
        "Upsample",
        "F.interpolate F.upsample",
        answered_by=("UpsamplingNearest2d", "UpsamplingBilinear2d"),
    ),
    _upsampling("UpsamplingNearest2d", "F.upsample_nearest", kinds=(Kind.IMAGE,)),
    _upsampling("UpsamplingBilinear2d", "F.upsample_bilinear", kinds=(Kind.IMAGE,)),
)
