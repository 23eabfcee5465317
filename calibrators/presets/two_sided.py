"""Rules on bins of signed values: MXNet (and TVM), ONNX Runtime (and neural-compressor), PaddleSlim."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.errors import MethodError
from calibrators.presets.grids import (
    level_starts,
    relative_entropy,
    signed_counts,
    smoothed,
    spread,
)

if TYPE_CHECKING:
    from calibrators.histogram import Histogram

__all__ = ["mxnet", "onnxruntime", "paddleslim", "two_sided_4001"]


_MXNET_LEVELS = 255


def mxnet(histogram: Histogram) -> tuple[float, str]:
    """Apache MXNet's ``calib_mode="entropy"`` for int8: 8001 bins, 255 levels.

    Levels are ``size // 255`` bins wide, and the last one takes the rest: 509 bins are divided into
    254 levels of one bin and one of 255. The leftmost bin counts in P but not in Q. Of equal
    candidates the first wins.

    Source: src/operator/quantization/calibrate.cc in https://github.com/apache/mxnet;
    python/tvm/relay/quantize/kl_divergence.py in https://github.com/apache/tvm (before 0.18).
    """
    return _mxnet_search(histogram, _two_sided(histogram, 8001))


def two_sided_4001(histogram: Histogram) -> tuple[float, str]:
    """MXNet's rule on 4001 bins with the middle bin cleared, as in tutorials on TensorRT's KL.

    Clearing the middle bin removes the zeros, and the small values beside them.

    Source: the first version of MXNet's python/mxnet/contrib/quantization.py, and code derived from
    it.
    """
    counts = _two_sided(histogram, 4001)
    counts[len(counts) // 2] = 0
    return _mxnet_search(histogram, counts)


def _two_sided(histogram: Histogram, num_bins: int) -> np.ndarray:
    amax = histogram.observed_amax
    return signed_counts(histogram, -amax, amax, num_bins)


def _mxnet_search(histogram: Histogram, counts: np.ndarray) -> tuple[float, str]:
    middle = len(counts) // 2
    half_widths = range(_MXNET_LEVELS // 2, middle + 1)
    values = [_mxnet_divergence(counts, middle - half, middle + half + 1) for half in half_widths]
    if np.isinf(values).all():
        return histogram.observed_amax, "the rule has no finite candidate; this is the maximum"
    half = half_widths[int(np.argmin(values))]
    return (2 * half + 1) / len(counts) * histogram.observed_amax, ""


def _mxnet_divergence(counts: np.ndarray, start: int, stop: int) -> float:
    plain = counts[start:stop].copy()
    clipped = plain.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    plain[0] = 0
    candidate = spread(plain, plain > 0, level_starts(len(plain), _MXNET_LEVELS))
    candidate[clipped == 0] = 0
    return relative_entropy(smoothed(clipped), smoothed(candidate))


def onnxruntime(
    histogram: Histogram, num_bins: int = 128, num_quantized_bins: int = 128
) -> tuple[float, str]:
    """``CalibrationMethod.Entropy`` of ONNX Runtime's quantization tool, all data as one batch.

    With the tool's defaults, 128 bins for 128 levels, there is one candidate, which clips nothing.
    Levels are ``size // levels`` bins wide; the remaining bins stay empty in Q, whose values are
    rounded down to integers. The tool's range need not be symmetric; this is the larger of its ends.

    Args:
        histogram: the tensor's histogram.
        num_bins: number of bins of the tool's histogram of signed values.
        num_quantized_bins: number of levels.

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
    values = [_onnxruntime_divergence(counts, start, stop, levels) for start, stop in slices]
    start, stop = slices[int(np.argmin(values))]
    lowest = max(edges[start], histogram.minimum)
    highest = min(edges[stop], histogram.maximum)
    return float(max(abs(lowest), abs(highest))), ""


def _onnxruntime_divergence(counts: np.ndarray, start: int, stop: int, levels: int) -> float:
    plain = counts[start:stop]
    clipped = plain.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    whole = len(plain) // levels * levels
    held = plain[:whole].copy()
    # the remaining bins add their count to the last level, but do not belong to it
    held[whole - 1] += plain[whole:].sum()
    candidate = np.zeros(len(plain))
    starts = level_starts(whole, levels)
    candidate[:whole] = np.floor(spread(held, clipped[:whole] > 0, starts))
    return relative_entropy(smoothed(clipped), smoothed(candidate))


_PADDLESLIM_BINS = 2048
_PADDLESLIM_LEVELS = 127


def paddleslim(histogram: Histogram) -> tuple[float, str]:
    """``KLObserver``: 2048 bins from minimum to maximum, 127 levels, no fewer than 1023 bins kept.

    The threshold is measured from zero although the bins begin at the minimum, which is right only
    for tensors whose minimum is zero. All data count as one batch; the tool resamples its histogram
    as the range grows.

    Source: paddleslim/quant/observers/kl.py and base_hist.py in
    https://github.com/PaddlePaddle/PaddleSlim
    """
    if histogram.minimum == histogram.maximum:
        return histogram.observed_amax, "the rule has no answer for a constant; this is the maximum"
    counts = signed_counts(histogram, histogram.minimum, histogram.maximum, _PADDLESLIM_BINS)
    width = (histogram.maximum - histogram.minimum) / _PADDLESLIM_BINS
    first = (_PADDLESLIM_BINS - 1) // 2
    candidates = [kept for kept in range(first, _PADDLESLIM_BINS) if counts[kept - 1]]
    if not candidates:
        kept = int(np.flatnonzero(counts[: first + 1])[-1])
    else:
        kept = candidates[
            int(np.argmin([_paddleslim_divergence(counts, kept) for kept in candidates]))
        ]
    return (kept + 0.5) * width, ""


def _paddleslim_divergence(counts: np.ndarray, kept: int) -> float:
    plain = counts[:kept]
    clipped = plain.copy()
    clipped[-1] += counts[kept:].sum()
    q = spread(plain, clipped > 0, level_starts(kept, _PADDLESLIM_LEVELS)) * (clipped > 0)
    return relative_entropy(clipped, q)
