"""ONNX Runtime's entropy calibrator, which Intel's neural-compressor shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.errors import MethodError
from calibrators.presets.divergence import level_starts, relative_entropy, smoothed, spread
from calibrators.regrid import signed_counts

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["onnxruntime"]


def onnxruntime(
    histogram: Histogram, num_bins: int = 128, num_quantized_bins: int = 128
) -> tuple[float, str]:
    """``CalibrationMethod.Entropy`` of ONNX Runtime's quantization tool, all data as one batch.

    With its defaults, 128 bins for 128 levels, there is one candidate, which clips nothing. Levels
    are ``size // levels`` bins wide, and the bins left over stay empty in Q, which holds whole
    numbers. The tool's range may be one-sided; this is the larger of its two ends.

    Args:
        histogram: what was seen.
        num_bins: bins of the tool's two-sided histogram.
        num_quantized_bins: levels.

    Raises:
        MethodError: fewer bins than levels, or less than two levels.

    Source: onnxruntime/python/tools/quantization/calibrate.py in
    https://github.com/microsoft/onnxruntime (1.23); the 128 bins:
    https://github.com/microsoft/onnxruntime/issues/9597
    """
    num_bins, levels = int(num_bins), int(num_quantized_bins)
    if not 1 < levels <= num_bins:
        raise MethodError(f"{num_bins} bins cannot be merged into {levels} levels.")
    amax = histogram.observed_amax
    counts = signed_counts(histogram, -amax, amax, num_bins)
    edges = np.linspace(-amax, amax, num_bins + 1)
    middle = num_bins // 2
    half_widths = range(levels // 2, middle + 1)
    slices = [(middle - half, min(middle + half + 1, num_bins)) for half in half_widths]
    values = [_divergence(counts, start, stop, levels) for start, stop in slices]
    start, stop = slices[int(np.argmin(values))]
    lowest = max(edges[start], histogram.minimum)
    highest = min(edges[stop], histogram.maximum)
    return float(max(abs(lowest), abs(highest))), ""


def _divergence(counts: np.ndarray, start: int, stop: int, levels: int) -> float:
    plain = counts[start:stop]
    clipped = plain.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    whole = len(plain) // levels * levels
    held = plain[:whole].copy()
    # the count of the bins left over goes to the last level, its bins do not
    held[whole - 1] += plain[whole:].sum()
    candidate = np.zeros(len(plain))
    starts = level_starts(whole, levels)
    candidate[:whole] = np.floor(spread(held, clipped[:whole] > 0, starts))
    return relative_entropy(smoothed(clipped), smoothed(candidate))
