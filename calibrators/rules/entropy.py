"""The default: TensorRT's entropy rule over a range that all the data decide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from calibrators.entropy import search

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["LARGEST_CLIPPED_SHARE", "NEGLIGIBLE_SHARE", "covering_exponent", "entropy"]

NEGLIGIBLE_SHARE = 1e-5
"""Of the non-zero values, so many may lie beyond the smallest candidate to halve the range."""

LARGEST_CLIPPED_SHARE = 1e-2
"""Of the non-zero values, so many may be clipped."""

_NUM_BINS = 2048
_SMALLEST_EXPONENT = -100


def entropy(histogram: Histogram) -> tuple[float, str]:
    """The threshold that loses least information by TensorRT's rule, see `entropy_reference`.

    The 2048 bins span the smallest power of two that covers `observed_amax`. The smallest threshold
    that the rule can then choose is 1/16 of that. While all but `NEGLIGIBLE_SHARE` of the non-zero
    values lie below this smallest one, the range is halved: a few outliers do not take the
    resolution away from the rest. What lies beyond the range counts as clipped, as the rule counts
    outliers.

    Bin 0, which holds the zeros, takes the count of bin 1. Candidates that clip more than
    `LARGEST_CLIPPED_SHARE` are left out: the rule compares what is kept with itself, and finds no
    fault in keeping one bin of a tensor that lies far from zero. The threshold is never above
    `observed_amax`.
    """
    exponent = covering_exponent(histogram.observed_amax)
    if exponent < _SMALLEST_EXPONENT:
        return histogram.observed_amax, "too small to search in, so nothing is clipped"
    counts, exponent, halvings = _range_without_outliers(histogram, exponent)
    outliers = histogram.num_values - int(counts.sum())
    note = ""
    if halvings:
        note = (
            f"{outliers} values from {2.0**exponent:g} to {histogram.observed_amax:g} are outliers "
            "and were left out of the range searched"
        )
    smallest = _fewest_kept(counts, outliers, histogram.num_values - histogram.num_zeros)
    counts[0] = counts[1]
    kept = search(counts, outliers=outliers, smallest=smallest)
    return min((kept + 0.5) * 2.0**exponent / _NUM_BINS, histogram.observed_amax), note


def _fewest_kept(counts: np.ndarray, outliers: int, num_nonzero: int) -> int:
    """The smallest candidate that does not clip too much."""
    clipped = outliers + np.cumsum(counts[::-1])[::-1]  # by keeping 0, 1, ... n - 1 bins
    too_many = np.flatnonzero(clipped > LARGEST_CLIPPED_SHARE * num_nonzero)
    return max(_NUM_BINS // 16, int(too_many[-1]) + 1)


def covering_exponent(amax: float) -> int:
    """The smallest e with 2**e >= amax."""
    mantissa, exponent = math.frexp(amax)
    return exponent - 1 if mantissa == 0.5 else exponent


def _range_without_outliers(histogram: Histogram, exponent: int) -> tuple[np.ndarray, int, int]:
    """Counts, exponent of the range, and how often it was halved."""
    num_negligible = NEGLIGIBLE_SHARE * (histogram.num_values - histogram.num_zeros)
    halvings = 0
    while True:
        counts = histogram.fold(exponent)
        num_searched = histogram.num_values - int(counts[: _NUM_BINS // 16].sum())
        if num_searched > num_negligible or exponent == _SMALLEST_EXPONENT:
            return counts, exponent, halvings
        exponent -= 1
        halvings += 1
