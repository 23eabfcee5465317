"""Our histogram on another grid: equal bins, as other tools and pictures want them.

A value's place inside one of our bins is not known: values are taken as spread evenly over it. The
counts stay whole numbers and their sum is exact. Our bins are at most 1/1024 of their magnitude
wide, about as wide as the last of 2048 equal ones; below that the counts are as good as exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.grid import SIGN_OFFSET, lower_edges

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["magnitude_counts", "signed_counts"]


def magnitude_counts(histogram: Histogram, num_bins: int) -> np.ndarray:
    """Counts of the non-zero |x| in equal bins from 0 to `Histogram.observed_amax`.

    Returns:
        ``int64[num_bins]``; zeros are in none of them.
    """
    numbers, counts = histogram.magnitudes()
    edges = np.linspace(0, histogram.observed_amax, num_bins + 1)
    return np.diff(_below(numbers, counts, histogram.observed_amax, edges))


def signed_counts(histogram: Histogram, lower: float, upper: float, num_bins: int) -> np.ndarray:
    """Counts of x in equal bins from `lower` to `upper`, zeros included: ``int64[num_bins]``."""
    numbers, counts = histogram.signed_bins()
    negative = numbers >= SIGN_OFFSET
    edges = np.linspace(lower, upper, num_bins + 1)
    below_positive = _below(
        numbers[~negative], counts[~negative], histogram.maximum, np.maximum(edges, 0)
    )
    beyond_negative = _below(
        numbers[negative] - SIGN_OFFSET,
        counts[negative],
        -histogram.minimum,
        np.maximum(-edges, 0),
    )
    num_zeros = np.where(edges > 0, histogram.num_zeros, 0)
    below = below_positive + num_zeros - beyond_negative
    # what equals the upper end belongs to the last bin, and what equals the lower to the first
    below[0], below[-1] = -counts[negative].sum(), counts[~negative].sum() + histogram.num_zeros
    return np.diff(below)


def _below(numbers: np.ndarray, counts: np.ndarray, amax: float, points: np.ndarray) -> np.ndarray:
    """How many of the magnitudes lie below each point, ``int64``; all of them from `amax` on."""
    if len(numbers) == 0:
        return np.zeros(len(points), np.int64)
    lower = lower_edges(numbers)
    upper = np.minimum(lower_edges(numbers + 1), amax)
    index = np.searchsorted(lower, points, side="right") - 1
    inside = np.maximum(index, 0)
    width = np.where(upper > lower, upper - lower, 1.0)[inside]
    share = np.clip((points - lower[inside]) / width, 0.0, 1.0)
    before = np.cumsum(counts) - counts
    below = before[inside] + np.rint(counts[inside] * share).astype(np.int64)
    return np.where(points >= amax, counts.sum(), np.where(index < 0, 0, below))
