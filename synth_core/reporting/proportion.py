"""Confidence intervals of a proportion, for the report and the preview."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054  # the two-sided 95% quantile of the normal distribution


def wilson(successes: int, tried: int) -> tuple[float, float]:
    """The 95% score interval of a proportion (Wilson 1927). (0, 1) if nothing was tried."""
    if not tried:
        return 0.0, 1.0
    rate, z2 = successes / tried, _Z95**2
    middle = (rate + z2 / (2 * tried)) / (1 + z2 / tried)
    half = _Z95 / (1 + z2 / tried) * math.sqrt(rate * (1 - rate) / tried + z2 / (4 * tried**2))
    return max(0.0, middle - half), min(1.0, middle + half)
