"""The exponential function for ends of confidence intervals, which may be infinite."""

from __future__ import annotations

import math

__all__ = ["exp"]

_LARGEST_POWER = 700.0


def exp(power: float) -> float:
    """Return e to the `power`; infinity where a float64 cannot hold it, where `math.exp` raises."""
    return math.exp(power) if power < _LARGEST_POWER else math.inf
