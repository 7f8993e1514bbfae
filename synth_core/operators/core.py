"""Rows of the core group: dense layers, convolutions, matrix products."""

from __future__ import annotations

from synth_core.operators.operator import ANY, KIND_OF_RANK, TOKENS, Group, Kind, Operator, spelled


def _row(
    name: str, functions: str, kinds: tuple[Kind, ...], torch_name: str = "", **more: object
) -> Operator:
    return Operator(
        name=name,
        group=Group.CORE,
        torch_name=torch_name or f"torch.nn.{name}",
        kinds=kinds,
        realised_by=spelled(functions),
        **more,  # type: ignore[arg-type]
    )


CORE: tuple[Operator, ...] = (
    _row("Linear", "F.linear", ANY, answered_by=("Gemm",)),
    _row("Bilinear", "F.bilinear", TOKENS),
    *(
        _row(name.format(rank), function.format(rank), (kind,))
        for name, function in (
            ("Conv{}d", "F.conv{0}d torch.conv{0}d"),
            ("ConvTranspose{}d", "F.conv_transpose{0}d torch.conv_transpose{0}d"),
        )
        for rank, kind in KIND_OF_RANK.items()
    ),
    # A program of the seed system's folder writes Matmul as a Linear without a bias as often as not.
    _row("Matmul", "matmul mm T.__rmatmul__ torch.linalg.matmul", ANY, "torch.matmul", aliases=("MatMul",)),
    _row(
        "Gemm", "addmm", TOKENS, "torch.addmm", aliases=("GEMM",), answered_by=("Linear",), folds_to="Linear"
    ),
    _row("BMM", "bmm baddbmm", (Kind.SEQUENCE, Kind.SIGNAL), "torch.bmm", aliases=("Bmm",)),
)
