"""The bins of a histogram: a float32's sign, exponent and ten leading mantissa bits.

A bin's number is the upper 19 bits of the float32 representation of its values. So the grid does not
depend on the data, every octave has 1024 equal bins, and two histograms are merged by adding counts.
If a range ``[0, 2**e)`` is cut into 2048 equal bins, each of them is an exact union of bins of this
grid: the upper half of the range has exactly 1024.

A bin's width is at most 1/1024 of the magnitudes in it.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "BINS_PER_OCTAVE",
    "NUM_MAGNITUDES",
    "SHIFT",
    "SIGN_OFFSET",
    "key_of_bits",
    "lower_edges",
    "magnitude_index",
    "sort_key",
    "sort_value",
]

BINS_PER_OCTAVE = 1024
SHIFT = 13
"""Bits of a float32 that are dropped: of 23 mantissa bits, ten are kept."""
SIGN_OFFSET = 1 << (31 - SHIFT)
"""A negative value's bin lies this far above the bin of its magnitude."""
NUM_MAGNITUDES = 0x7F800000 >> SHIFT
"""Number of bins for finite magnitudes; infinity and NaN have higher numbers."""


def lower_edges(indices: np.ndarray) -> np.ndarray:
    """Lower edge of magnitude bins, ``float64``; the upper edge of bin i is ``lower_edges(i + 1)``.

    The edge above the last finite bin is 2**128, which a float32 cannot hold.
    """
    bits = np.asarray(indices, np.uint32) << np.uint32(SHIFT)
    edges = bits.view(np.float32).astype(np.float64)
    return np.where(np.isinf(edges), 2.0**128, edges)


def magnitude_index(magnitude: float) -> int:
    """Number of the bin that holds a finite magnitude (taken as float32)."""
    return int(np.float32(magnitude).view(np.uint32)) >> SHIFT


def sort_key(value: float) -> int:
    """Return an integer that sorts like the float32 value: its bits, inverted for negative values."""
    return key_of_bits(int(np.float32(value).view(np.uint32)))


def key_of_bits(bits: int) -> int:
    """Return the `sort_key` of the float32 value with these `bits`, from 0 to 2**32 - 1."""
    return bits if bits < 1 << 31 else (bits ^ 0x7FFFFFFF) - (1 << 32)


def sort_value(key: int) -> float:
    """Return the float32 value of a `sort_key`; -0.0 becomes 0.0."""
    bits = key ^ 0x7FFFFFFF if key < 0 else key
    return float(np.int32(bits).view(np.float32)) + 0.0
