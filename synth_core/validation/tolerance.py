"""When two tensors count as the same answer. Needs torch alone.

An element agrees when |a - b| <= rtol * |reference| + atol * scale, scale being the root mean square of the
reference: an absolute tolerance would pass anything where outputs are small, and near zero a relative one
would fail everything (relative errors of right answers reach 7e-3 there).

Sources. float32: 34 of 34 programs agreed between eager and Inductor within rtol 1.3e-6 / atol 1e-5 on
outputs of scale 1. rtol 1e-4 leaves room for other reduction orders in long sums, and atol 5e-5 for a norm
behind a cancellation (1.2e-5 was met on a KernelBench program, eager float32 against float64). float64: the
same distance from its own precision. float16 and bfloat16: eager rounds after every call, Inductor
once a fused chain, fp64 never, so they differ by a unit in the last place (2^-11, 2^-8) for every call on the
way; as many are allowed as the graph has calls, and ten at least. Integers and booleans must be equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import torch


@dataclass(frozen=True)
class Tolerance:
    """rtol and atol as above; at most `outliers`, a share of all elements, may exceed them."""

    rtol: float
    atol: float
    outliers: float = 0.0

    def describe(self) -> dict[str, float]:
        return asdict(self)


_TABLE = {
    torch.float64: Tolerance(1e-7, 5e-8),
    torch.float32: Tolerance(1e-4, 5e-5),
    torch.complex64: Tolerance(1e-4, 5e-5),
    torch.complex128: Tolerance(1e-7, 5e-8),
}
_LAST_PLACE = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
MIN_ROUNDINGS = 10
EXACT = Tolerance(0.0, 0.0)

# A threshold, a comparison or an index turns a rounding error into a step. A right answer may then differ
# in the few elements that lie on a step; a float32 error of 1e-6 meets one in some 1e5 elements.
STEPS_ALLOWED = 1e-3
_STEPS = """
    argmax argmin argsort bucketize ceil eq floor floor_divide floordiv fmod frac ge gt hardshrink heaviside
    int isclose le long lt max_unpool1d max_unpool2d max_unpool3d mod ne remainder round searchsorted sign
    sort threshold topk trunc
""".split()  # noqa: SIM905


def tolerance_for(dtype: torch.dtype, targets: Iterable[str] = ()) -> Tolerance:
    """The tolerance of outputs of `dtype`, of a program whose captured graph calls `targets` (dotted)."""
    calls = [target.rpartition(".")[2].strip("_") for target in targets if target]
    base = _TABLE.get(dtype, EXACT)
    if dtype in _LAST_PLACE:
        rounding = _LAST_PLACE[dtype] * max(MIN_ROUNDINGS, len(calls))
        base = Tolerance(rounding, rounding)
    return replace(base, outliers=STEPS_ALLOWED if any(call in _STEPS for call in calls) else 0.0)


@dataclass(frozen=True)
class Difference:
    """How far two tensors lie apart.

    share: of elements beyond the tolerance.
    worst: largest |a - b| / (rtol |reference| + atol scale); 1 is the limit.
    scale: root mean square of the reference.
    """

    share: float
    worst: float
    scale: float

    def describe(self) -> dict[str, float]:
        return {key: float(f"{value:.3g}") for key, value in asdict(self).items()}


def difference(value: torch.Tensor, reference: torch.Tensor, tolerance: Tolerance) -> Difference:
    """Compare two tensors of one shape, in double precision.

    Elements that are not finite agree when they are equal (both NaN, or the same infinity).
    """
    if not reference.numel():
        return Difference(0.0, 0.0, 0.0)
    wide = torch.complex128 if reference.is_complex() or value.is_complex() else torch.float64
    a, b = value.to(wide), reference.to(wide)
    finite = torch.isfinite(b)
    magnitude = b.abs()
    scale = float(magnitude[finite].square().mean().sqrt()) if bool(finite.any()) else 0.0
    limit = torch.where(finite, tolerance.rtol * magnitude + tolerance.atol * scale, 0.0)
    gap = (a - b).abs()
    gap[(a == b) | (a.isnan() & b.isnan())] = 0.0
    beyond = ~(gap <= limit)
    excess = torch.where(gap == 0.0, 0.0, gap / limit)
    worst = float(excess.nan_to_num(nan=torch.inf).max())
    return Difference(float(beyond.double().mean()), worst, scale)


def agrees(found: Difference, tolerance: Tolerance) -> bool:
    return found.share <= tolerance.outliers
