"""Rows of the core group: dense layers, convolutions, matrix products."""

from __future__ import annotations

from synth_core.operators.operator import KIND_OF_RANK, TOKENS, Group, Kind, Operator, section

_dense = section(Group.CORE, "dense", TOKENS)
_convolution = section(Group.CORE, "convolution", ())
_product = section(Group.CORE, "product", TOKENS)

CORE: tuple[Operator, ...] = (
    _dense("Linear", "F.linear", answered_by=("Gemm",)),
    _dense("Bilinear", "F.bilinear"),
    *(
        _convolution(name.format(rank), function.format(rank), kinds=(kind,))
        for name, function in (
            ("Conv{}d", "F.conv{0}d torch.conv{0}d"),
            ("ConvTranspose{}d", "F.conv_transpose{0}d torch.conv_transpose{0}d"),
        )
        for rank, kind in KIND_OF_RANK.items()
    ),
    _product(
        "Matmul",
        "matmul mm T.__rmatmul__ torch.linalg.matmul",
        torch_name="torch.matmul",
        aliases=("MatMul",),
    ),
    _product(
        "Gemm",
        "addmm",
        torch_name="torch.addmm",
        kinds=(Kind.VECTOR,),
        aliases=("GEMM",),
        answered_by=("Linear",),
        folds_to="Linear",
    ),
    _product(
        "BMM",
        "bmm baddbmm",
        torch_name="torch.bmm",
        kinds=(Kind.SEQUENCE, Kind.SIGNAL),
        aliases=("Bmm",),
    ),
)
