"""Collecting and choosing as TensorRT 10 does: the thresholds of ``IInt8EntropyCalibrator2``.

The range of a tensor's histogram is the largest magnitude of the first batch, doubled whenever a
later batch exceeds it. So the thresholds depend on order and size of the batches, and histograms of
parts of the data cannot be merged; `calibrators.rules` has the same rule without this dependence.

The procedure was recovered from public calibration tables whose network and images are known, and
reproduces them to the last bit (docs/calibration-methods.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from calibrators import entropy
from calibrators.calibration import Calibration
from calibrators.collector import Collector
from calibrators.histogram import as_float32
from calibrators.methods import assess

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from calibrators.histogram import Histogram
    from calibrators.ranges import TensorRange

__all__ = ["METHOD", "DoublingHistogram", "TensorRTCollector"]

METHOD = "entropy-tensorrt"
_NUM_BINS = 2048
_INFINITY_BITS = 0x7F800000


class DoublingHistogram:
    """Counts of |x| in 2048 equal bins; the first batch sets their range, later batches double it."""

    def __init__(self) -> None:
        self.range = 0.0
        """Upper end of the last bin; 0.0 while only zeros were seen."""
        self.counts = np.zeros(_NUM_BINS, np.int64)
        self.has_infinity = False

    def observe(self, batch: np.ndarray) -> None:
        """Count one batch; another division into batches may give another result.

        The first batch with a value other than zero sets the range. NaN are left out.

        Args:
            batch: floating point, any shape.

        Raises:
            ObservationError: the values are not floating point.
        """
        from calibrators.kernels import count_equal_bins, largest_magnitude

        values = as_float32(batch)
        largest = int(largest_magnitude(values.view(np.uint32)))
        if largest >= _INFINITY_BITS:
            self.has_infinity |= bool(np.isinf(values).any())
            values = values[np.isfinite(values)]
            largest = int(largest_magnitude(values.view(np.uint32)))
        if largest == 0:
            self.counts[0] += values.size
            return
        self._cover(float(np.uint32(largest).view(np.float32)))
        count_equal_bins(values, self.range, self.counts)

    def _cover(self, amax: float) -> None:
        if self.range == 0:
            self.range = amax
        while self.range < amax:
            pairs = self.counts[0::2] + self.counts[1::2]
            self.counts = np.concatenate([pairs, np.zeros(_NUM_BINS // 2, np.int64)])
            self.range *= 2

    def kept_bins(self) -> int:
        """Return the number of bins that TensorRT would keep, from 128 to 2048."""
        counts = self.counts.copy()
        counts[0] = counts[1]
        return entropy.search(counts)

    def amax(self) -> float:
        """Return the threshold, a float32 value: 0.0 for a tensor of zeros, infinite if an infinity was seen.

        It may exceed the largest magnitude: the range may, and half a bin is added.
        """
        if self.has_infinity:
            return math.inf
        if self.range == 0:
            return 0.0
        return float(np.float32((self.kept_bins() + 0.5) * self.range / _NUM_BINS))


class TensorRTCollector:
    """Observes tensors as TensorRT's calibration does, batch by batch in the order given.

    An order-independent `Histogram` is kept beside each `DoublingHistogram`: the figures of a
    `TensorRange` and other methods need it.

    Args:
        names: the tensors to observe.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.statistics = Collector(names)
        self.doubling = {name: DoublingHistogram() for name in self.statistics.histograms}

    def observe(self, arrays: Mapping[str, np.ndarray], *, batch: int) -> None:
        """Count one batch of some or all of the tensors; call it once per tensor and batch.

        Args:
            arrays: tensor name to the values of the whole batch.
            batch: number of the batch, for the record of values that are not finite.

        Raises:
            ObservationError: a tensor is not among those to observe, or its values are not floating point.
        """
        self.statistics.observe(arrays, batch=batch)
        for name, values in arrays.items():
            self.doubling[name].observe(values)

    def calibration(self, provenance: Mapping[str, str] | None = None) -> Calibration:
        """Return the ranges that TensorRT 10 would find.

        Scales that TensorRT shares between tensors are not shared here, which needs the graph: see
        `calibrators.with_shared_ranges`.
        """
        ranges = {
            name: _range(self.doubling[name], histogram)
            for name, histogram in self.statistics.histograms.items()
        }
        return Calibration(METHOD, ranges, {}, dict(provenance or {}), self.statistics.histograms)


def _range(doubling: DoublingHistogram, histogram: Histogram) -> TensorRange:
    amax = doubling.amax()
    note = ""
    if amax == 0:
        note = f"zero in all {histogram.num_values} values"
    elif math.isinf(amax):
        note = "holds infinite values, for which TensorRT has no scale"
    return assess(histogram, amax, METHOD, note)
