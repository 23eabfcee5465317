"""The expected error of INT8 quantization, computed from a histogram alone.

The quantizer is ``q = clip(round(x / scale), -127, 127)`` with ``scale = amax / 127``. TensorRT also
uses the code -128; this is ignored, as it extends the range by one step on one side only. Values are
assumed to be spread evenly over their bin, whose width is at most 1/1024 of their magnitude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from calibrators.grid import lower_edges

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["LEVELS", "ExpectedError", "MagnitudeMoments", "expected_error", "sqnr_db"]

LEVELS = 127
"""Largest magnitude of a symmetric signed 8-bit code."""


class MagnitudeMoments:
    """Number, sum and sum of squares of the magnitudes below a point, from a histogram's bins."""

    def __init__(self, histogram: Histogram) -> None:
        numbers, counts = histogram.magnitudes()
        self.lower = lower_edges(numbers)
        self.upper = np.minimum(lower_edges(numbers + 1), histogram.observed_amax)
        self._counts = counts.astype(np.float64)
        whole = _moments_of_part(self.lower, self.upper, self._counts)
        self._before = np.concatenate([np.zeros((3, 1)), np.cumsum(whole, axis=1)], axis=1)

    @property
    def total(self) -> np.ndarray:
        """All non-zero values: ``float64[3]``, number, sum of |x|, sum of squares."""
        return self._before[:, -1]

    def below(self, points: np.ndarray) -> np.ndarray:
        """Moments of the non-zero magnitudes below `points` of any shape: ``float64[3, ...]``."""
        index = np.searchsorted(self.lower, points, side="right") - 1
        inside = np.maximum(index, 0)
        lower, upper = self.lower[inside], self.upper[inside]
        width = np.where(upper > lower, upper - lower, 1.0)
        share = np.clip((points - lower) / width, 0.0, 1.0)
        # if the observed amax is the lower edge of its bin, that bin has no width and holds only this value
        share = np.where(upper > lower, share, points >= lower)
        part = _moments_of_part(
            lower, lower + share * (upper - lower), self._counts[inside] * share
        )
        moments: np.ndarray = self._before[:, inside] + np.where(index < 0, 0.0, part)
        return moments


def _moments_of_part(lower: np.ndarray, upper: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Number, sum and sum of squares of `counts` values spread evenly from `lower` to `upper`."""
    squares = (lower * lower + lower * upper + upper * upper) / 3
    moments: np.ndarray = np.stack([counts, counts * (lower + upper) / 2, counts * squares])
    return moments


class ExpectedError(NamedTuple):
    """Sums of squared errors over all values, in the square of the tensor's unit."""

    rounding: np.ndarray
    clipping: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Rounding and clipping together."""
        total: np.ndarray = self.rounding + self.clipping
        return total


def expected_error(moments: MagnitudeMoments, amaxes: np.ndarray) -> ExpectedError:
    """Squared error of symmetric INT8 for each of `amaxes`, ``float64[k]``, all above 0."""
    scales = amaxes[:, None] / LEVELS
    codes = np.arange(LEVELS + 1)
    # Values between c - 1/2 and c + 1/2 steps are rounded to code c; the last code ends at amax.
    borders = np.minimum(codes + 0.5, LEVELS) * scales
    below = moments.below(borders)
    held = np.diff(below, axis=-1, prepend=0.0)
    rounding = _squared_distance(held, codes * scales).sum(axis=1)
    beyond = moments.total[:, None] - below[..., -1]
    return ExpectedError(rounding, _squared_distance(beyond, amaxes))


def _squared_distance(held: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Sum of (x - point)**2, from number, sum and sum of squares of the x."""
    number, total, squares = held
    # rounding errors could make it slightly negative
    distance: np.ndarray = np.maximum(squares - 2 * point * total + point * point * number, 0.0)
    return distance


def sqnr_db(signal: float, error: float) -> float:
    """SQNR in dB from the sums of squares of signal and error; infinite without error."""
    if error <= 0:
        return np.inf
    return 10 * float(np.log10(signal / error)) if signal > 0 else -np.inf
