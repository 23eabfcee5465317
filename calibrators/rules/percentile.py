"""The magnitude below which a given share of the values lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.errors import MethodError
from calibrators.grid import lower_edges

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["percentile"]


def percentile(histogram: Histogram, percentile: float = 99.99) -> tuple[float, str]:
    """The upper edge of the bin in which the percentile of |x| lies, so at most 0.1 % above it.

    Zeros count as values. Where even the percentile is zero, that of the non-zero values is taken.

    Args:
        histogram: what was seen.
        percentile: in percent, above 0 and up to 100.

    Raises:
        MethodError: the percentile is not in that range.
    """
    if not 0 < percentile <= 100:
        raise MethodError(f"percentile is {percentile:g}; it must be above 0 and at most 100.")
    numbers, counts = histogram.magnitudes()
    num_zeros, note = histogram.num_zeros, ""
    if num_zeros >= histogram.num_values * percentile / 100:
        num_zeros = 0
        note = f"{percentile:g} % of the values are zero; this is the percentile of the others"
    up_to = num_zeros + np.cumsum(counts)
    position = int(np.searchsorted(up_to, up_to[-1] * percentile / 100))
    edge = float(lower_edges(numbers[min(position, len(numbers) - 1)] + 1))
    return min(edge, histogram.observed_amax), note
