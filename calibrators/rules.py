"""Threshold rules: functions ``(histogram, **options) -> (amax, note)``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from calibrators.entropy import search
from calibrators.errors import MethodError
from calibrators.grid import lower_edges, magnitude_index
from calibrators.quantization_error import LEVELS, MagnitudeMoments, expected_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calibrators.histogram import Histogram

__all__ = [
    "LARGEST_CLIPPED_SHARE",
    "NEGLIGIBLE_SHARE",
    "auto",
    "covering_exponent",
    "entropy",
    "minmax",
    "mse",
    "percentile",
    "power_error",
]


def minmax(histogram: Histogram) -> tuple[float, str]:
    """Return the exact `Histogram.observed_amax`, as TensorRT's ``IInt8MinMaxCalibrator`` takes it."""
    return histogram.observed_amax, ""


def percentile(histogram: Histogram, percentile: float = 99.99) -> tuple[float, str]:
    """Return the upper edge of the bin that holds the percentile of |x|: at most 0.1 % above it.

    Zeros count as values. If the percentile is zero, the percentile of the non-zero values is taken.

    Args:
        histogram: the tensor's histogram.
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
    # without the last bin: 100 % of 1e15 values may be rounded up to more than there are
    position = int(np.searchsorted(up_to[:-1], up_to[-1] * percentile / 100))
    edge = float(lower_edges(numbers[position] + 1))
    return min(edge, histogram.observed_amax), note


_OCTAVES = 16
_PER_OCTAVE = 8
_REFINED = 33


def mse(histogram: Histogram) -> tuple[float, str]:
    """Return the threshold with the least expected squared error, rounding plus clipping, of INT8.

    It tries eight thresholds per octave over the sixteen octaves below `observed_amax`, then twice 33
    more around the best, so the result is within 0.1 % of that local minimum.
    """
    return histogram.answer("mse", _mse)


def _mse(histogram: Histogram) -> tuple[float, str]:
    moments = MagnitudeMoments(histogram)
    top = histogram.observed_amax
    exponents = -np.arange(_OCTAVES * _PER_OCTAVE + 1) / _PER_OCTAVE
    step = 1 / _PER_OCTAVE
    for _ in range(3):
        amaxes = top * np.exp2(exponents)
        best = exponents[int(np.argmin(expected_error(moments, amaxes).total))]
        exponents = best + step * np.linspace(1, -1, _REFINED)
        exponents = exponents[exponents <= 0]
        step *= 2 / (_REFINED - 1)
    amax = float(top * np.exp2(best))
    # In the uppermost bin only its end, the observed amax, is known to occur.
    return (top if magnitude_index(amax) == magnitude_index(top) else amax), ""


NEGLIGIBLE_SHARE = 1e-5
"""The range is halved while at most this share of the non-zero values exceeds the smallest candidate."""

LARGEST_CLIPPED_SHARE = 1e-2
"""A candidate may clip at most this share of the non-zero values."""

_NUM_BINS = 2048
_SMALLEST_EXPONENT = -100


def entropy(histogram: Histogram) -> tuple[float, str]:
    """Return the threshold that loses least information by TensorRT's rule, see `entropy_reference`.

    The 2048 bins span the smallest power of two that covers `observed_amax`. The smallest candidate is
    1/16 of this range. While all but `NEGLIGIBLE_SHARE` of the non-zero values lie below it, the range
    is halved, so that a few outliers do not cost the other values their resolution. Values beyond the
    range count as clipped.

    The count of bin 0, which holds the zeros, is replaced by that of bin 1. Candidates that clip more
    than `LARGEST_CLIPPED_SHARE` are left out: the rule measures only how well levels represent the
    kept bins, so it would keep a single bin of a tensor that lies far from zero. The threshold is
    never above `observed_amax`.
    """
    return histogram.answer("entropy", _entropy)


def _entropy(histogram: Histogram) -> tuple[float, str]:
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
    """The smallest candidate that clips at most `LARGEST_CLIPPED_SHARE`."""
    clipped = outliers + np.cumsum(counts[::-1])[::-1]  # if 0, 1, ... n - 1 bins are kept
    too_many = np.flatnonzero(clipped > LARGEST_CLIPPED_SHARE * num_nonzero)
    return max(_NUM_BINS // 16, int(too_many[-1]) + 1)


def covering_exponent(amax: float) -> int:
    """Return the smallest e with 2**e >= amax."""
    mantissa, exponent = math.frexp(amax)
    return exponent - 1 if mantissa == 0.5 else exponent


def _range_without_outliers(histogram: Histogram, exponent: int) -> tuple[np.ndarray, int, int]:
    """Counts of the 2048 bins, exponent of the range, and how often it was halved."""
    num_negligible = NEGLIGIBLE_SHARE * (histogram.num_values - histogram.num_zeros)
    halvings = 0
    while True:
        counts = histogram.fold(exponent)
        num_searched = histogram.num_values - int(counts[: _NUM_BINS // 16].sum())
        if num_searched > num_negligible or exponent == _SMALLEST_EXPONENT:
            return counts, exponent, halvings
        exponent -= 1
        halvings += 1


_CANDIDATES: Mapping[str, Callable[[Histogram], tuple[float, str]]] = {
    "entropy": entropy,
    "mse": mse,
    "percentile 99.999": lambda histogram: percentile(histogram, 99.999),
    "percentile 99.99": lambda histogram: percentile(histogram, 99.99),
    "percentile 99.9": lambda histogram: percentile(histogram, 99.9),
    "minmax": minmax,
}


def auto(histogram: Histogram, power: float = 1.75) -> tuple[float, str]:
    """Return the threshold of the rule with the least sum of |error|**power; of equal ones the first.

    The squared error would nearly always choose ``mse``, and weighs a few clipped values more than they
    matter to the network's outputs. 1.75 was never far from the best of four powers on four networks
    (docs/calibration-methods.md).

    Args:
        histogram: the tensor's histogram.
        power: exponent of the error's magnitude, above 0; 2 is the squared error.

    Raises:
        MethodError: the power is not above 0.
    """
    if not power > 0:
        raise MethodError(f"power is {power:g}; it must be above 0.")
    choices = {name: rule(histogram)[0] for name, rule in _CANDIDATES.items()}
    errors = {name: power_error(histogram, amax, power) for name, amax in choices.items()}
    best = min(errors, key=errors.__getitem__)
    return choices[best], f"the threshold of {best}"


def power_error(histogram: Histogram, amax: float, power: float) -> float:
    """Return the sum of |x - Q(x)|**power over all values, each assumed at the middle of its bin."""
    numbers, counts = histogram.magnitudes()
    upper = np.minimum(lower_edges(numbers + 1), histogram.observed_amax)
    middle = (lower_edges(numbers) + upper) / 2
    scale = amax / LEVELS
    quantized = np.minimum(np.rint(middle / scale), LEVELS) * scale
    return float(np.sum(counts * np.abs(middle - quantized) ** power))
