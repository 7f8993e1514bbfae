"""How far apart the elements are that one step of a loop reads: Inductor asks that again and again.

Inductor simplifies the index of each access as a whole to find out, which was a quarter of what compiling a
program cost here (measured, CPU). But an index is a sum, and the stride of a sum is the sum of strides: most
terms are a loop variable times an integer, and the few quotients and remainders come again and again.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import sympy  # type: ignore[import-untyped]
from torch._inductor.codegen import cpp


def quicken() -> None:
    """From now on Inductor in this process and its forks asks term by term."""
    inductor: Any = cpp
    inductor.stride_at_vec_range = lru_cache(partial(stride, inductor.stride_at_vec_range))


def stride(whole: Any, index: Any, variable: Any, lanes: int | None = None) -> Any:
    """By how much `index` grows when `variable` grows by one, within a vector of `lanes` elements.

    whole: Inductor's own function, which simplifies. It is asked for a quotient or a remainder alone, and for
        an index that is no sum of such terms, variables and constants times integers.
    """
    total = sympy.Integer(0)
    for term in sympy.Add.make_args(index):
        if not term.has(variable):
            continue
        times, rest = term.as_coeff_Mul() if isinstance(term, sympy.Expr) else (1, term)
        if rest != variable and not isinstance(rest, sympy.Function):
            return whole(index, variable, lanes)
        total += times * (1 if rest == variable else whole(rest, variable, lanes))
    return total
