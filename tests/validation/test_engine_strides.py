"""Strides that are asked for term by term are those that Inductor finds by simplifying the whole index."""

from __future__ import annotations

import pytest
import sympy  # type: ignore[import-untyped]
from torch._inductor.sizevars import stride_at_vec_range
from torch.utils._sympy.functions import FloorDiv, ModularIndexing

from synth_core.validation.inside.strides import stride

A, B, C = sympy.symbols("x0 x1 x2", integer=True, nonnegative=True)

INDICES = [
    sympy.Integer(7),
    A,
    784 * A + 28 * B + C + 3,
    460 * A + FloorDiv(B, 16) + 76 * FloorDiv(C, 6) + 8 * ModularIndexing(B, 1, 4) + ModularIndexing(C, 1, 6),
    1152 * FloorDiv(A, 1152) + 8 * ModularIndexing(A, 1, 144) + ModularIndexing(A, 144, 8),
    ModularIndexing(A, 1, 32) + 32 * B,
    FloorDiv(A, 32) + 5 * FloorDiv(A, 4),
    FloorDiv(A + 3 * B, 4),
    A * B + 2 * A,
    A**2,
    3 * (A + B) + FloorDiv(C, 2),
    sympy.Piecewise((A, B > 3), (2 * A, True)),
    sympy.Ge(A, 5),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("lanes", [None, 8, 16])
def test_terms_add_up_to_the_whole(index: sympy.Basic, lanes: int | None) -> None:
    for variable in (A, B, C):
        try:
            whole = stride_at_vec_range(index, variable, lanes)
        except TypeError:  # a condition that depends on the variable has no stride
            with pytest.raises(TypeError):
                stride(stride_at_vec_range, index, variable, lanes)
            continue
        added = stride(stride_at_vec_range, index, variable, lanes)
        assert added.is_number == whole.is_number
        assert sympy.simplify(added - whole) == 0
        assert (added == whole) or not whole.is_number
        assert added.has(variable) == whole.has(variable)
