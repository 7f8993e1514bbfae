"""When two tensors count as the same answer. Needs only torch.

An element agrees if |a - b| <= rtol * |reference| + atol * scale. The scale is the root mean square of the
reference. An absolute tolerance alone would pass anything if outputs are small. A relative tolerance alone
would fail everything near zero, where right answers have relative errors up to 7e-3.

Sources. float32: eager and Inductor agreed on 34 of 34 programs within rtol 1.3e-6 and atol 1e-5, on outputs
of scale 1. rtol 1e-4 leaves room for other orders of long sums. atol 5e-5 leaves room for a norm after a
cancellation (1.2e-5 occurred on a KernelBench program, eager float32 against float64). float64: the same
distance from its own precision. float16 and bfloat16: eager rounds after every call, Inductor once per fused
chain, and fp64 never. So each call may add a difference of one unit in the last place (2^-11, 2^-8). As many
units are allowed as the graph has calls, and at least ten. Integers and booleans must be equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import torch


@dataclass(frozen=True)
class Tolerance:
    """rtol and atol as above. outliers: the share of elements that may exceed them."""

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

# A threshold, a comparison or an index turns a rounding error into a step. So a right answer may differ in
# the few elements that lie on a step. With a float32 error of 1e-6 that is about one element in 1e5.
STEPS_ALLOWED = 1e-3
_STEPS = """
    argmax argmin argsort bucketize ceil eq floor floor_divide floordiv fmod frac ge gt hardshrink heaviside
    int isclose le long lt max_unpool1d max_unpool2d max_unpool3d mod ne remainder round searchsorted sign
    sort threshold topk trunc
""".split()  # noqa: SIM905


def tolerance_for(dtype: torch.dtype, targets: Iterable[str] = ()) -> Tolerance:
    """The tolerance for outputs of `dtype`. targets: dotted names of what the captured graph calls."""
    calls = [target.rpartition(".")[2].strip("_") for target in targets if target]
    base = _TABLE.get(dtype, EXACT)
    if dtype in _LAST_PLACE:
        rounding = _LAST_PLACE[dtype] * max(MIN_ROUNDINGS, len(calls))
        base = Tolerance(rounding, rounding)
    return replace(base, outliers=STEPS_ALLOWED if any(call in _STEPS for call in calls) else 0.0)


@dataclass(frozen=True)
class Difference:
    """How much two tensors differ.

    share: share of elements beyond the tolerance.
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

    Elements that are not finite agree if both are NaN or the same infinity.
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
