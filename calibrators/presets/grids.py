"""Shared by the presets: our histogram on other tools' grids, levels, smoothing, relative entropy.

Where a value lies inside one of our bins is not known, so values are assumed to be spread evenly over
it. Counts are rounded to integers; their sum is exact. Our bins are at most 1/1024 of their magnitude
wide, about as wide as the last of 2048 equal bins; for lower bins the counts are nearly exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.grid import SIGN_OFFSET, lower_edges

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = [
    "level_starts",
    "magnitude_counts",
    "relative_entropy",
    "signed_counts",
    "smoothed",
    "spread",
]


def magnitude_counts(histogram: Histogram, num_bins: int) -> np.ndarray:
    """Return the counts of the non-zero |x| in equal bins from 0 to `Histogram.observed_amax`.

    Returns:
        ``int64[num_bins]``; zeros are not counted.
    """
    numbers, counts = histogram.magnitudes()
    edges = np.linspace(0, histogram.observed_amax, num_bins + 1)
    return np.diff(_below(numbers, counts, histogram.observed_amax, edges))


def signed_counts(histogram: Histogram, lower: float, upper: float, num_bins: int) -> np.ndarray:
    """Return the counts of x in equal bins from `lower` to `upper`, zeros included: ``int64[num_bins]``."""
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
    # values equal to the upper end belong to the last bin, those equal to the lower end to the first
    below[0], below[-1] = -counts[negative].sum(), counts[~negative].sum() + histogram.num_zeros
    return np.diff(below)


def _below(numbers: np.ndarray, counts: np.ndarray, amax: float, points: np.ndarray) -> np.ndarray:
    """How many magnitudes lie below each point, ``int64``; all, if the point is at or above `amax`."""
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


def level_starts(size: int, levels: int) -> np.ndarray:
    """First bin of each of `levels` levels of ``size // levels`` bins; the last takes the rest."""
    return np.arange(levels) * (size // levels)


def spread(counts: np.ndarray, filled: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Per bin: the count of its level, divided by the number of filled bins in that level."""
    held = np.add.reduceat(counts, starts)
    num_filled = np.add.reduceat(filled.astype(np.int64), starts)
    means = np.where(num_filled > 0, held / np.maximum(num_filled, 1), 0.0)
    return np.repeat(means, np.diff(starts, append=len(counts)))


def smoothed(counts: np.ndarray, amount: float = 1e-4) -> np.ndarray | None:
    """Fill every empty bin with `amount`, subtracted in equal parts from the filled bins, in float32.

    In float32, subtracting so little from a large count has no effect, as in the tools that do this.

    Returns:
        The new counts; None if no bin is filled, or if each would lose a whole count or more.
    """
    empty = counts == 0
    num_empty = np.count_nonzero(empty)
    num_filled = len(counts) - num_empty
    if num_filled == 0 or amount * num_empty >= num_filled:
        return None
    taken = np.float32(amount * num_empty / num_filled)
    less: np.ndarray = np.where(empty, np.float32(amount), counts.astype(np.float32) - taken)
    return less


def relative_entropy(p: np.ndarray | None, q: np.ndarray | None) -> float:
    """Return the divergence of p from q in nats, after dividing each by its sum.

    Infinite if q is 0 in a bin where p is not, or if either is None.
    """
    if p is None or q is None:
        return float("inf")
    p, q = p / p.sum(dtype=np.float64), q / q.sum(dtype=np.float64)
    held = p > 0
    if np.any(q[held] <= 0):
        return float("inf")
    return float(np.sum(p[held] * np.log(p[held] / q[held])))
