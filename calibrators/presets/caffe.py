"""caffe-int8-convert-tools, whose tables early ncnn read, and EasyQuant, which grew out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibrators.presets.divergence import level_starts, relative_entropy, smoothed, spread
from calibrators.regrid import signed_counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from calibrators.histogram import Histogram

__all__ = ["caffe_int8", "easyquant"]

_LEVELS = 128


def caffe_int8(histogram: Histogram) -> tuple[float, str]:
    """BUG1989's caffe-int8-convert-tools: 2048 bins, empty bins get 1e-4 at the end.

    Negative values are not counted, though the range covers them. Bin 0 is cut off and the
    threshold is not moved back. The last level's last bin gets nothing of Q.

    Source: caffe-int8-convert-tool-dev-weight.py in
    https://github.com/BUG1989/caffe-int8-convert-tools
    """
    return _search(histogram, 2048, np.asarray)


def easyquant(histogram: Histogram) -> tuple[float, str]:
    """DeepGlint's EasyQuant: the same on 2001 bins, and P and Q smoothed first.

    Source: tools/caffe_quanttable_e2e.py in https://github.com/deepglint/EasyQuant
    """
    return _search(histogram, 2001, smoothed)


def _search(
    histogram: Histogram, num_bins: int, smooth: Callable[[np.ndarray], np.ndarray | None]
) -> tuple[float, str]:
    amax = histogram.observed_amax
    counts = signed_counts(histogram, -amax, amax, 2 * num_bins)[num_bins:][1:]
    if not counts.any():
        return amax, "the rule counts positive values only; this is the maximum"
    candidates = range(_LEVELS, len(counts))
    values = [_divergence(counts, kept, smooth) for kept in candidates]
    return (candidates[int(np.argmin(values))] + 0.5) * amax / num_bins, ""


def _divergence(
    counts: np.ndarray, kept: int, smooth: Callable[[np.ndarray], np.ndarray | None]
) -> float:
    plain = counts[:kept]
    clipped = plain.copy()
    clipped[-1] += counts[kept:].sum()
    filled = clipped > 0
    filled[-1] = False
    q = spread(plain, filled, level_starts(kept, _LEVELS))
    q[~filled] = 0
    smooth_p, smooth_q = smooth(clipped), smooth(q)
    if smooth_p is None or smooth_q is None:
        return float("inf")
    return relative_entropy(
        np.where(smooth_p == 0, 1e-4, smooth_p), np.where(smooth_q == 0, 1e-4, smooth_q)
    )
